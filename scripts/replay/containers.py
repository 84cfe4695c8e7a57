"""Runs a compose service's process in the built view: its user, environment, command, health check and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.replay import compose
from scripts.replay.image import Image, run


class ReplayError(RuntimeError):
    """A step went differently than compose expects."""


@dataclass
class Containers:
    """Everything needed to run the project's own services; `root` is the mounted view of the last stage."""

    root: Path
    image: Image
    environ: Mapping[str, str]

    def command(self, service: Mapping[str, Any]) -> list[str]:
        """Entry point and command as docker puts them together."""
        if "entrypoint" in service:
            return [*service["entrypoint"], *service.get("command", [])]
        return [*self.image.entrypoint, *service.get("command", self.image.command)]

    def start(self, service: Mapping[str, Any], log: Path) -> subprocess.Popen[bytes]:
        """The service's process, with what it prints in the file `log`."""
        own = self.image.env | compose.environment(service, self.environ)
        with log.open("wb") as output:
            return subprocess.Popen(
                [*self._inside(), *self.command(service)],
                env={"HOME": "/nonexistent", **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run_once(self, service: Mapping[str, Any], log: Path, limit: float = 120) -> str:
        """Runs a one-shot service to its end; what it printed. ReplayError unless it exits with 0."""
        process = self.start(service, log)
        try:
            code = process.wait(limit)
        finally:
            if process.poll() is None:
                process.kill()
        text = log.read_text("utf-8", "replace")
        if code != 0:
            raise ReplayError(f"{' '.join(self.command(service))[:60]} exited with {code}:\n{text[-3000:]}")
        return text

    def check_health(self, service: Mapping[str, Any]) -> bool:
        """One run of the health check: compose's where it has one, else the image's."""
        test = service.get("healthcheck", {}).get("test", ["CMD", *self.image.health])
        if test[0] != "CMD":
            raise ReplayError(f"health check not in exec form: {test}")
        own = self.image.env | compose.environment(service, self.environ)
        done = subprocess.run([*self._inside(), *test[1:]], env=own, capture_output=True, timeout=30)
        return done.returncode == 0

    def writes(self, folder: str) -> bool:
        """Whether the image's user can make a file there."""
        script = ["sh", "-c", 'touch "$0/.probe" && rm "$0/.probe"', folder]
        return (
            subprocess.run([*self._inside(), *script], env=self.image.env, capture_output=True).returncode
            == 0
        )

    def _inside(self) -> list[str]:
        """The image's user without a capability, as `cap_drop: [ALL]` and `no-new-privileges` have it."""
        user, _, group = self.image.user.partition(":")
        drop = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        root = ["chroot", str(self.root)]
        return [*root, "setpriv", f"--reuid={user}", f"--regid={group}", *drop, "--"]


def prepare(root: Path, service: Mapping[str, Any], hosts: list[str]) -> None:
    """The view as compose would start it: names of other services, tmpfs, volumes, then read-only."""
    lines = ["127.0.0.1 localhost", *(f"127.0.0.1 {name}" for name in hosts)]
    (root / "etc" / "hosts").write_text("\n".join(lines) + "\n", "utf-8")
    if not service.get("read_only"):
        raise ReplayError("the gateway's root is not read-only")
    # A named volume takes over owner and mode of the image's folder, and stays writable.
    volumes = [root / volume.split(":")[1].lstrip("/") for volume in service["volumes"]]
    for place in volumes:
        status = place.stat()
        owner = f"uid={status.st_uid},gid={status.st_gid},mode={status.st_mode & 0o7777:o}"
        run(["mount", "-t", "tmpfs", "-o", owner, "tmpfs", str(place)])
    for folder in service["tmpfs"]:
        run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / folder.lstrip("/"))])
    run(["mount", "-o", "remount,ro", str(root)])


def stop(process: subprocess.Popen[bytes], limit: float, number: int = signal.SIGTERM) -> int:
    """Ends it by its id; ReplayError when it outlives its grace period."""
    if process.poll() is None:
        os.kill(process.pid, number)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise ReplayError(f"process {process.pid} did not end within {limit} s") from None


def wait_until(true: Any, what: str, limit: float = 60.0) -> float:
    """Waits for `true()`; the seconds it took. ReplayError after `limit` seconds."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > limit:
            raise ReplayError(f"not within {limit} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began
