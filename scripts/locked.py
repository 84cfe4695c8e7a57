"""A lock of requirements/ as data: its packages, their hashes, and who asked for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURSELVES = "pixapi-gateway"
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;]+)(?:\s*;\s*(.+?))?\s*\\?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^\s+#\s+(?:via\s+)?([A-Za-z0-9][A-Za-z0-9._-]*)(?:\s+\(.*\))?$")


@dataclass(frozen=True)
class Locked:
    """One pinned package. `marker` is empty when every platform gets it; `via` are the names that asked for it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]


def lock_path(lock: str) -> Path:
    return ROOT / "requirements" / f"{lock}.lock"


def read_lock(lock: str) -> list[Locked]:
    """The packages of `requirements/<lock>.lock` in their order there."""
    found: list[Locked] = []
    for block in _blocks(lock_path(lock).read_text("utf-8")):
        pin = _PIN.match(block[0])
        if pin is None:
            raise ValueError(f"{lock}.lock: not understood: {block[0]}")
        hashes = tuple(match[1] for line in block for match in _HASH.finditer(line))
        via = tuple(match[1] for line in block[1:] if (match := _VIA.match(line)) and match[1] != "via")
        found.append(Locked(pin[1], pin[2], pin[3] or "", hashes, via))
    return found


def _blocks(text: str) -> list[list[str]]:
    """The lines of each package: one that begins in the first column, and those that are indented below it."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line[:1].isspace() and blocks:
            blocks[-1].append(line)
        elif line and not line.startswith("#"):
            blocks.append([line])
    return blocks
