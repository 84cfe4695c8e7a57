"""What is wrong with the settings: every problem at once, each with the place to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend.

    `setting` is `section.field` (or the file's name when it cannot be read), `source` where the value came
    from (`environment GATEWAY_…`, `file …/gateway.toml`, `command line`, `not set`), `message` what is wrong
    and what to do. It never holds the value of a secret.
    """

    setting: str
    source: str
    message: str

    def __str__(self) -> str:
        return _printable_line(f"{self.setting}: {self.message} [{self.source}]")


class SettingsError(Exception):
    """The settings cannot be used. `str()` is one line a problem; the process exits with code 2.

    `warnings` are those of `Settings.warnings` known so far: a misspelt name often explains a missing setting.
    """

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[str] = ()) -> None:
        self.problems: list[Problem] = list(problems)
        self.warnings: tuple[str, ...] = tuple(warnings)
        lines = [str(problem) for problem in self.problems]
        lines += [_printable_line(f"warning: {warning}") for warning in self.warnings]
        super().__init__("\n".join(lines))


def _printable_line(text: str) -> str:
    """`text` on one line any terminal can take: names and paths may hold newlines and undecodable bytes."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
