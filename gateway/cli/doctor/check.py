"""One thing the doctor looked at: what was found, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
_ORDER: dict[State, int] = {"ok": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Check:
    """`ok`: fine; `warn`: works, and is probably not meant; `fail`: something does not work. `advice` is what to do
    about it, empty when that is nothing."""

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Check:
    return Check(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    return Check(name, "fail", found, advice)


def worst(checks: list[Check], otherwise: Check) -> list[Check]:
    """What is wrong, the worst first; `otherwise` when nothing is."""
    return sorted(checks, key=lambda check: -_ORDER[check.state]) or [otherwise]


def size(count: float) -> str:
    """Bytes as people read them: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
