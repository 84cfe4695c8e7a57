"""A process's memory and open temporary files, read from /proc (Linux)."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

MIB = 1024 * 1024


class Memory:
    """How far a process's resident memory rises above what it was when this was made; in bytes."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        try:
            (self._proc / "clear_refs").write_text("5")  # the peak is from now on
            self._before = self._read("VmRSS")
        except OSError:
            self._before = self._read("VmHWM")

    def growth(self) -> int:
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB$", (self._proc / "status").read_text(), re.MULTILINE)
        assert found, f"/proc has no {name}"
        return int(found[1]) * 1024


def open_files_in(pid: int, folder: Path) -> list[str]:
    """What the process holds open in `folder`; files without a name too, whose entry ends in ` (deleted)`."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            target = str(link.readlink())
            if target.startswith(f"{folder}/"):
                found.append(target)
    return found
