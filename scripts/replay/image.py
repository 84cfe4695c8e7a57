"""Builds the Dockerfile's stages on copy-on-write views of this machine's root, and says what the image would be.

Each stage sees this machine's system (read-only below) with the local Python as its `python`; what its steps write
lands in a folder of its own. Only the last stage's view is used afterwards, as docker does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.replay.dockerfile import DockerfileError, Stage, Step, context, read, substitute

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """The configuration that docker would keep with the image."""

    env: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Image:
        return cls(**json.loads(path.read_text("utf-8")))


def say(text: str) -> None:
    print(f"→ {text}", flush=True)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def mount_view(folder: Path, source: Path, python: Path) -> Path:
    """This machine's root, copied on write into `folder`/upper, without the checkout. Call in a mount namespace."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for one in (upper, work, root):
        one.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root)])
    run(["mount", "--rbind", "/dev", str(root / "dev")])
    run(["mount", "-t", "proc", "proc", str(root / "proc")])
    inside = root / python.relative_to("/")
    if not (inside / "bin").exists():  # it lies on a file system of its own
        inside.mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", "-o", "ro", str(python), str(inside)])
    checkout = root / source.relative_to("/")
    checkout.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", str(checkout)])
    return root


def build(source: Path, folder: Path, python: Path) -> None:
    """Replays `source`/Dockerfile into `folder`; `python` is the prefix of the interpreter to use."""
    stages = read((source / "Dockerfile").read_text("utf-8"))
    built: dict[str, Path] = {}
    for number, stage in enumerate(stages):
        say(f"FROM {stage.image} (here: {python}/bin/python)")
        root = mount_view(folder / f"stage-{number}", source, python)
        _prepare(root, python)
        image = _replay(stage, root, source, built, Image(env={"PATH": f"{python}/bin:{SYSTEM_PATH}"}))
        built[stage.name or str(number)] = root
    image.save(folder / "image.json")
    (folder / "last").symlink_to(f"stage-{len(stages) - 1}")


def _prepare(root: Path, python: Path) -> None:
    """What docker's base image would have, and not what this machine has beside it."""
    inside = root / python.relative_to("/")
    for parent in [inside, *inside.parents]:
        mode = parent.stat().st_mode
        if parent != root and parent.is_relative_to(root) and mode & 0o055 != 0o055:
            parent.chmod(mode | 0o055)
    if not (inside / "bin" / "python").exists():
        (inside / "bin" / "python").symlink_to("python3")
    for name in ("opt/gateway", "opt/build", "src", "wheels", "var/spool/pixapi-gateway"):
        if (root / name).exists():
            raise DockerfileError(f"/{name} is on this machine already")
    run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp")])


def _replay(stage: Stage, root: Path, source: Path, built: Mapping[str, Path], image: Image) -> Image:
    for step in stage.steps:
        say(f"{step.name} {step.rest}"[:140])
        if step.name == "ENV":
            known = dict(image.env)
            image.env |= {name: substitute(value, known) for name, value in step.pairs().items()}
        elif step.name == "WORKDIR":
            image.folder = step.rest
            (root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            _copy(step, root, source, built, image.folder)
        elif step.name == "RUN":
            # The registry's settings of this machine count, as build arguments would.
            pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            command = ["chroot", str(root), "sh", "-c", f'cd "$0" && {step.rest}', image.folder]
            done = subprocess.run(
                command, env={"HOME": "/root", **pip, **image.env}, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise DockerfileError(
                    f"RUN exited with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
                )
        elif step.name == "USER":
            image.user = step.rest
        elif step.name == "EXPOSE":
            image.ports = step.rest.split()
        elif step.name == "HEALTHCHECK":
            image.health = step.exec_form()
        elif step.name == "ENTRYPOINT":
            image.entrypoint = step.exec_form()
        elif step.name == "CMD":
            image.command = step.exec_form()
    return image


def _copy(step: Step, root: Path, source: Path, built: Mapping[str, Path], folder: str) -> None:
    *names, target = step.words()
    destination = root / os.path.join(folder, target).lstrip("/")  # noqa: PTH118 - an absolute target wins
    if "from" in step.flags:
        for name in names:
            shutil.copytree(built[step.flags["from"]] / name.lstrip("/"), destination, symlinks=True)
        return
    files = context(source)
    for name in names:
        wanted = files if name == "." else [one for one in files if one == name or one.startswith(f"{name}/")]
        if not wanted:
            raise DockerfileError(f"COPY {name}: not in the build context")
        for one in wanted:
            into = target.endswith("/") or len(names) > 1 or name == "."
            place = destination / (Path(one).name if one == name else one.removeprefix(f"{name}/"))
            place = place if into or one != name else destination
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / one, place)
