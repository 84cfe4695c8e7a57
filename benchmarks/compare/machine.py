"""On what was measured: cores, memory, versions."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import sys

from benchmarks.compare import peers
from benchmarks.compare.nginx import binary

_GIB = 1024**3


def facts(postgres: str) -> dict[str, str]:
    """What a reader of the figures must know, by name; programs that are missing are left out."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    found = {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file limit": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "Python": platform.python_version(),
        "Postgres": postgres,
        "nginx": first_line([binary("nginx"), "-v"]).removeprefix("nginx version: nginx/"),
        "wrk": _wrk(),
    }
    if node := shutil.which("node"):
        found["node"] = first_line([node, "--version"]).removeprefix("v")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found["commit"] = first_line(["git", "describe", "--always", "--dirty"])
    return found | peers.versions()


def first_line(command: list[str]) -> str:
    """What a program says first, on either output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    said = (done.stdout + done.stderr).strip()
    return said.splitlines()[0] if said else "?"


def _wrk() -> str:
    words = first_line([binary("wrk"), "-v"]).split()  # wrk debian/4.1.0-3+b2 [epoll] Copyright …
    return words[1].removeprefix("debian/") if len(words) > 1 else "?"


def raise_file_limit() -> int:
    """As many open files as this user may have; children inherit it."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        limit = most
    return limit if limit != resource.RLIM_INFINITY else sys.maxsize
