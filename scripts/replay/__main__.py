"""Replays Dockerfile and docker-compose.yml on a machine without docker: `python -m scripts.replay`.

What is real: every step of the Dockerfile, its user, a read-only root, compose's environment, commands, health checks
and order, `make env`. What is not: the base image is this machine's system with the local Python, and the databases
come from the embedded packages. Needs root on Linux, for namespaces of its own; leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("unshare", "mount", "chroot", "setpriv", "curl")


def impossible() -> str | None:
    """Why it cannot be done here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it needs root on Linux"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not found"
    with tempfile.TemporaryDirectory() as folder:
        view = "mkdir u w m && mount -t overlay o -o lowerdir=/,upperdir=u,workdir=w m && test -d m/usr"
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", view]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return f"no namespaces or overlays here: {done.stderr.strip()}" if done.returncode else None


def base_python() -> Path:
    """The prefix of the interpreter to build with: python3.13 as in the Dockerfile, else the one that runs this."""
    for name in ("python3.13", sys.executable):
        if found := shutil.which(name):
            ask = [found, "-c", "import ensurepip, sys; print(sys.base_prefix)"]
            done = subprocess.run(ask, capture_output=True, text=True)
            if done.returncode == 0:
                return Path(done.stdout.strip())
    raise SystemExit("no Python with ensurepip found")


def main() -> int:
    if reason := impossible():
        print(f"Cannot replay the Dockerfile: {reason}.", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="pxg-replay-"))
    folder.chmod(0o711)
    try:
        scripts = folder / "project" / "scripts"
        scripts.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "make_env.sh", scripts)
        subprocess.run([scripts / "make_env.sh", "sandbox"], check=True, stdout=sys.stderr)
        python = str(base_python())
        return _step([], "build", folder, python) or _step(["--net"], "serve", folder, python)
    finally:
        _remove(folder)


def _step(namespaces: list[str], module: str, folder: Path, *arguments: str) -> int:
    """Runs a part in namespaces of its own: whatever it started or mounted is gone with it."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *namespaces]
    command = [*own, sys.executable, "-m", f"scripts.replay.{module}", str(ROOT), str(folder), *arguments]
    child = subprocess.Popen(command, cwd=ROOT)
    try:
        return child.wait()
    except BaseException:
        # unshare's end is its child's (--kill-child), and that one's end is everybody's in its namespace.
        child.kill()
        child.wait()
        raise


def _remove(folder: Path) -> None:
    """What was killed a moment ago may still be writing."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise SystemExit(f"cannot be removed: {folder}")


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())
