"""This machine: open files, the spool folder, the port, processors, and addresses that do not fit together."""

from __future__ import annotations

import errno
import http.client
import os
import resource
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gateway.cli.doctor.check import Check, fail, ok, size, warn, worst
from gateway.repeats.files import FOLDER
from gateway.settings import Settings

PortState = Literal["free", "gateway", "taken", "refused"]
SPARE_FILES = 200  # the database's, Redis's, log and library files
PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Spool:
    """What is known of the spool folder: `problem` says why it cannot be written; `kind` is its file system's."""

    folder: Path
    problem: str | None
    free: int
    kind: str
    answers_elsewhere: bool


def files(soft: int, hard: int, settings: Settings) -> Check:
    """Whether a process may open two sockets for each paid call, and its connections to the databases."""
    paid = settings.server.max_paid_in_flight
    needed = paid * 2 + settings.database_connections + SPARE_FILES
    unlimited = resource.RLIM_INFINITY
    if hard == unlimited or hard >= needed:
        shown = "no limit" if hard == unlimited else f"up to {hard}"
        return ok("open files", f"{shown} (now {soft}, raised at the start); {needed} are needed")
    return warn(
        "open files",
        f"at most {hard}, and {paid} paid calls at a time need {needed}",
        f"raise the limit (LimitNOFILE={needed}, ulimits: nofile) or lower server.max_paid_in_flight to "
        f"{max(1, (hard - settings.database_connections - SPARE_FILES) // 2)}",
    )


def spool(found: Spool, settings: Settings) -> list[Check]:
    """Whether large bodies find room."""
    server, name = settings.server, "spool folder"
    if found.problem is not None:
        return [
            fail(
                name,
                f"{found.folder}: {found.problem}",
                "make it, and let the gateway's user write there, or set server.spool_dir",
            )
        ]
    wrong = []
    largest, wanted = server.max_multipart_bytes, server.spool_max_bytes * server.workers
    if server.spool_max_bytes < largest:
        text = f"server.spool_max_bytes is {size(server.spool_max_bytes)}, and one upload may have {size(largest)}"
        wrong.append(fail(name, text, "raise server.spool_max_bytes, or lower server.max_multipart_bytes"))
    if found.free < largest:
        text = f"{found.folder} has {size(found.free)} free, and one upload may have {size(largest)}"
        wrong.append(fail(name, text, "free some space, or set server.spool_dir to a folder with room"))
    elif found.free < wanted:
        text = f"{found.folder} has {size(found.free)} free, and {size(wanted)} may be used"
        wrong.append(warn(name, text, "free some space, or lower server.spool_max_bytes to what is there"))
    if found.kind in ("tmpfs", "ramfs"):
        text = f"{found.folder} is in memory ({found.kind})"
        wrong.append(warn(name, text, "set server.spool_dir to a folder on a disk, or count it as memory"))
    if found.answers_elsewhere:
        text = f"{found.folder / FOLDER} is another file system than {found.folder}"
        wrong.append(warn(name, text, "keep both on one: server.spool_max_bytes is counted for both"))
    return worst(wrong, ok(name, f"{found.folder}, {size(found.free)} free of {size(wanted)} it may use"))


def port(state: PortState, settings: Settings) -> Check:
    """Whether `serve` could listen, or does."""
    server = settings.server
    place = f"{server.host}:{server.port}"
    if server.port == 0:
        return ok("port", "any free one (server.port is 0)")
    if state == "free":
        return ok("port", f"{place} is free: no gateway is served there now")
    if state == "gateway":
        return ok("port", f"a gateway answers on {place}")
    if state == "taken":
        advice = "stop the other program, or set server.port; `ss -ltnp` shows whose it is"
        return fail("port", f"{place} is used by another program", advice)
    return fail(
        "port",
        f"{place} cannot be listened on",
        "set server.host to an address of this machine, or server.port",
    )


def workers(cores: int, settings: Settings) -> Check:
    """Whether there are about as many processes as processors."""
    count = settings.server.workers
    found = (
        f"{count} {'process' if count == 1 else 'processes'} on {cores} {'core' if cores == 1 else 'cores'}"
    )
    if count > 2 * cores:
        return warn("workers", found, f"set server.workers to {cores}: more only take each other's time")
    return ok("workers", found)


def addresses(settings: Settings) -> list[Check]:
    """Whether host, public address, allowed hosts and proxies fit together."""
    server, wrong, name = settings.server, [], "addresses"
    public = urlsplit(server.public_url or "")
    local = server.host in ("127.0.0.1", "::1", "localhost")
    if public.scheme == "http" and public.hostname not in ("127.0.0.1", "::1", "localhost"):
        text = f"server.public_url is {server.public_url}: keys and prompts travel unencrypted"
        wrong.append(warn(name, text, "put TLS before the gateway and set server.public_url to https://…"))
    if server.allowed_hosts and public.hostname and public.hostname not in server.allowed_hosts:
        text = f"server.allowed_hosts does not hold {public.hostname}, which server.public_url names"
        wrong.append(fail(name, text, f"add {public.hostname} to server.allowed_hosts: its requests get 400"))
    if public.scheme == "https" and not server.trusted_proxies:
        text = "server.public_url is https, which a proxy speaks, and server.trusted_proxies is empty"
        wrong.append(
            warn(name, text, "name the proxy's network there, or every client counts as having its address")
        )
    if not local and not server.public_url:
        text = f"the gateway listens on {server.host} and server.public_url is not set"
        wrong.append(warn(name, text, "set it to where people reach the gateway, with https"))
    shown = server.public_url or f"http://{server.host}:{server.port}"
    return worst(wrong, ok(name, f"reached at {shown}"))


def look(settings: Settings) -> list[Check]:
    """Every check of this machine. Takes two seconds at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        files(soft, hard, settings),
        *spool(_spool(settings.server.spool_dir), settings),
        port(_port(settings.server.host, settings.server.port), settings),
        workers(len(os.sched_getaffinity(0)), settings),
        *addresses(settings),
    ]


def _spool(folder: Path) -> Spool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
            device = os.fstat(file.fileno()).st_dev
        answers = folder / FOLDER
        elsewhere = answers.exists() and answers.stat().st_dev != device
        return Spool(folder, None, shutil.disk_usage(folder).free, _file_system(folder), elsewhere)
    except OSError as error:
        return Spool(folder, error.strerror or str(error), 0, "", False)


def _file_system(folder: Path) -> str:
    """The type of the file system a folder is on, as the kernel calls it; "" where that cannot be known."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return ""
    path = folder.resolve()
    around = [(len(point), kind) for _, point, kind, *_ in mounts if path.is_relative_to(point)]
    return max(around, default=(0, ""))[1]


def _port(host: str, number: int) -> PortState:
    if number == 0:
        return "free"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return "refused"
        else:
            return "free"
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not listened on
    return "gateway" if _is_gateway(near, number) else "taken"


def _is_gateway(host: str, number: int) -> bool:
    connection = http.client.HTTPConnection(host, number, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.read(200) == b'{"status":"ok"}' and answer.getheader("x-request-id") is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
