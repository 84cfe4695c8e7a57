"""`docker compose run demo` of the sandbox profile, step by step, in the built view; then everything ends.

Runs in a network of its own that has loopback and nothing else, where postgres, valkey, sandbox and gateway are names
of 127.0.0.1 and compose's ports are free.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from scripts.replay import compose
from scripts.replay.containers import Containers, ReplayError, prepare, stop, wait_until
from scripts.replay.databases import databases
from scripts.replay.image import Image, mount_view, say

_SET_FLAGS, _UP_RUNNING = 0x8914, 0x41


def main(source: Path, folder: Path, python: Path) -> None:
    """Everything compose does for the gateway and the profile `sandbox`."""
    loopback_up()
    environ = compose.read_env((folder / "project" / ".env").read_text("utf-8"))
    services = compose.load(source / "docker-compose.yml", environ)["services"]
    image = Image.load(folder / "image.json")
    root = mount_view((folder / "last").resolve(), source, python)
    prepare(root, services["gateway"], list(services))
    inside = Containers(root, image, environ)
    check_user(inside, services["gateway"])
    with databases(services, folder):
        say("postgres and valkey are healthy")
        inside.run_once(services["migrate"], folder / "migrate.log")
        say("migrate exited with 0")
        processes = {}
        try:
            for name in ("sandbox", "gateway"):
                processes[name] = inside.start(services[name], folder / f"{name}.log")
            for name, process in processes.items():
                seconds = wait_until(lambda: healthy(inside, services[name], process), f"{name} is healthy")  # noqa: B023
                say(f"{name} is healthy after {seconds:.1f} s")
            demo(inside, services, folder)
            code = stop(processes["gateway"], compose.seconds(services["gateway"]["stop_grace_period"]))
            say(f"gateway got SIGTERM and exited with {code}")
            if code != 0:
                raise ReplayError((folder / "gateway.log").read_text("utf-8")[-3000:])
        except ReplayError:
            for name in processes:
                print((folder / f"{name}.log").read_text("utf-8", "replace")[-3000:], file=sys.stderr)
            raise
        finally:
            for process in processes.values():
                stop(process, 30, signal.SIGTERM)


def check_user(inside: Containers, gateway: dict[str, Any]) -> None:
    """The image's user writes to the volume and to tmpfs, and nowhere else."""
    user = inside.image.user.split(":")[0]
    if not user.isdigit() or user == "0":
        raise ReplayError(f"the image's user is {user}: not a number other than 0")
    volumes = [volume.split(":")[1] for volume in gateway["volumes"]]
    for place in [*gateway["tmpfs"], *volumes]:
        if not inside.writes(place):
            raise ReplayError(f"{place} cannot be written to")
    for place in ("/", "/opt/gateway", "/opt/gateway/bin", "/var/tmp"):
        if inside.writes(place):
            raise ReplayError(f"{place} can be written to")
    if (inside.root / "opt/gateway/bin/pip").exists():
        raise ReplayError("the image carries pip")
    say(f"user {user} writes to {', '.join([*gateway['tmpfs'], *volumes])} alone")


def healthy(inside: Containers, service: dict[str, Any], process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise ReplayError(f"ended with {process.returncode}")
    return inside.check_health(service)


def demo(inside: Containers, services: dict[str, Any], folder: Path) -> None:
    """The one-shot service twice, and the curl line it printed, word by word."""
    inside.run_once(services["demo"], folder / "demo.log")
    text = inside.run_once(services["demo"], folder / "demo.log")
    line = next(line for line in text.splitlines() if line.startswith("curl "))
    done = subprocess.run([*shlex.split(line), "-sS", "-i"], capture_output=True, text=True, timeout=60)
    head, _, body = done.stdout.partition("\n\n")
    if " 200 " not in head.splitlines()[0]:
        raise ReplayError(f"the call was answered:\n{done.stdout}{done.stderr}")
    url = json.loads(body)["data"][0]["url"]
    charged = next(line for line in head.splitlines() if line.lower().startswith("x-credits-charged"))
    with urllib.request.urlopen(url, timeout=10) as picture:
        size = len(picture.read())
    say(f"the demo's curl line was answered 200, {charged}, and its picture has {size} bytes")


def loopback_up() -> None:
    """Brings `lo` up; refuses to go on where there is any other network."""
    if names := [name for _, name in socket.if_nameindex() if name != "lo"]:
        raise ReplayError(f"not in a network of its own: {names}")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP_RUNNING))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
