"""CPU and memory of process trees and of the machine, read from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
KIB, MIB = 1024, 1024 * 1024
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat. `cpu` is user + system in ticks, `ended` that of its children that were awaited."""

    pid: int
    parent: int
    cpu: int
    ended: int
    resident: int  # pages


def parse_stat(line: str) -> Stat:
    """The name in parentheses may hold anything, brackets and blanks too."""
    pid, rest = line.split(" ", 1)
    fields = rest[rest.rindex(")") + 2 :].split()
    user, system, ended_user, ended_system = map(int, fields[11:15])
    return Stat(int(pid), int(fields[1]), user + system, ended_user + ended_system, int(fields[21]))


def parse_busy(text: str) -> int:
    """Ticks of /proc/stat's first line that programs used, here or (stolen) elsewhere; interrupts are nobody's."""
    user, nice, system, _idle, _waiting, _irq, _softirq, stolen = map(
        int, text.split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + stolen


def processes() -> dict[int, Stat]:
    """Every process there is."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                stat = parse_stat((entry / "stat").read_text("utf-8", "replace"))
                found[stat.pid] = stat
    return found


def tree(root: int, known: dict[int, Stat]) -> list[Stat]:
    """The process and all below it, of those known."""
    children: dict[int, list[int]] = {}
    for stat in known.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found, open_pids = [], [root]
    while open_pids:
        pid = open_pids.pop()
        if pid in known:
            found.append(known[pid])
        open_pids += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User + system seconds of these process trees since they began, with what of them has ended."""
    known = processes()
    return sum(one.cpu + one.ended for root in roots for one in tree(root, known)) / TICK


def busy_seconds() -> float:
    """Seconds of all cores together since the machine began."""
    return parse_busy((_PROC / "stat").read_text()) / TICK


def resident(root: int) -> int:
    """Bytes of memory of the tree; pages that two of its processes share count twice."""
    return sum(one.resident for one in tree(root, processes())) * PAGE


class Peak:
    """How far a tree's resident memory rises above what it was when this was made: each process's own peak, summed."""

    def __init__(self, root: int) -> None:
        self._pids = [one.pid for one in tree(root, processes())]
        for pid in self._pids:
            with contextlib.suppress(OSError):
                (_PROC / str(pid) / "clear_refs").write_text("5")  # the peak is from now on
        self._before = {pid: status_bytes(pid, "VmRSS") for pid in self._pids}

    def growth(self) -> int:
        """Bytes; of the processes there were at the beginning and still are."""
        return sum(max(0, status_bytes(pid, "VmHWM") - self._before[pid]) for pid in self._pids)


def status_bytes(pid: int, name: str) -> int:
    """A field of /proc/PID/status in bytes; 0 when there is none (it has ended, or is a thread of the kernel)."""
    with contextlib.suppress(OSError):
        text = (_PROC / str(pid) / "status").read_text()
        if found := re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE):
            return int(found[1]) * KIB
    return 0
