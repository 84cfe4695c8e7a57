"""Reads a Dockerfile and a .dockerignore: the instructions this project uses, anything else is an error."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DockerfileError(ValueError):
    """Something that docker would refuse, or that this reader does not know."""


@dataclass(frozen=True)
class Step:
    """One instruction: its flags (`--from=build`) and the rest of the line, joined."""

    name: str
    flags: Mapping[str, str]
    rest: str

    def words(self) -> list[str]:
        return shlex.split(self.rest)

    def exec_form(self) -> list[str]:
        """The JSON list of ENTRYPOINT, CMD or HEALTHCHECK's CMD; the shell form is an error."""
        try:
            found = json.loads(self.rest.removeprefix("CMD").strip())
        except json.JSONDecodeError:
            raise DockerfileError(f"{self.name} is not in exec form: {self.rest}") from None
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise DockerfileError(f"{self.name} is not a list of texts: {self.rest}")
        return found

    def pairs(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.words())


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    image: str
    name: str | None
    steps: list[Step] = field(default_factory=list)

    def last(self, name: str) -> Step | None:
        return next((step for step in reversed(self.steps) if step.name == name), None)


def read(text: str) -> list[Stage]:
    """The stages in order, `ARG` defaults put into their `FROM`."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for step in _steps(text):
        if step.name == "FROM":
            words = substitute(step.rest, arguments).split()
            named = words[2] if len(words) == 3 and words[1].upper() == "AS" else None
            stages.append(Stage(words[0], named))
        elif step.name == "ARG" and not stages:
            name, _, default = step.rest.partition("=")
            arguments[name] = default
        elif not stages:
            raise DockerfileError(f"{step.name} before the first FROM")
        else:
            stages[-1].steps.append(step)
    return stages


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` replaced; what is not known is empty, as docker has it."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], ""), text)


def _steps(text: str) -> Iterable[Step]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name not in KNOWN:
            raise DockerfileError(f"unknown instruction {name}")
        flags = {}
        rest = rest.strip()
        while rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            key, _, value = flag[2:].partition("=")
            flags[key] = value
            rest = rest.strip()
        yield Step(name, flags, rest)


# The build context -------------------------------------------------------------------------------------------


def ignore_patterns(text: str) -> list[tuple[re.Pattern[str], bool]]:
    """(pattern, whether it ignores) of a .dockerignore, in order; the last that fits decides."""
    found = []
    for line in text.splitlines():
        pattern = line.strip().rstrip("/")
        if pattern and not pattern.startswith("#"):
            keeps = pattern.startswith("!")
            found.append((re.compile(_expression(pattern.lstrip("!").lstrip("/"))), not keeps))
    return found


def ignored(path: str, patterns: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether docker would leave `path` (relative, with `/`) out; a pattern fits what lies below it too."""
    parents = [path[: found.start()] for found in re.finditer("/", path)]
    result = False
    for pattern, ignores in patterns:
        if any(pattern.fullmatch(one) for one in [*parents, path]):
            result = ignores
    return result


def context(root: Path) -> list[str]:
    """Every file of the build context, relative to `root`."""
    patterns = ignore_patterns((root / ".dockerignore").read_text("utf-8"))
    tops = [
        top
        for top in root.iterdir()
        if top.name not in (".git", ".venv") or not _excluded(top.name, patterns)
    ]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    names = [path.relative_to(root).as_posix() for path in files]
    return sorted(name for name in names if not ignored(name, patterns))


def _excluded(name: str, patterns: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether nothing below a top folder can be meant: spares a walk through thousands of files."""
    return ignored(name, patterns) and ignored(f"{name}/x", patterns)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part) or re.escape(part) for part in parts)
