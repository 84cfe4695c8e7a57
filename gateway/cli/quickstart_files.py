"""What the quickstart keeps in its folder: secrets, the sandbox's port, and an environment for other terminals.

Everything here is mode 0600 and written whole or not at all.
"""

from __future__ import annotations

import json
import os
import secrets as random
import shlex
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.access.key_format import ADMIN_TOKEN, make

SECRETS_FILE = "secrets.json"
PORT_FILE = "sandbox.port"
ENVIRONMENT_FILE = "env"
SPOOL_FOLDER = "spool"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated once; `team_key` is None until the demo team has one."""

    master_key: str
    key_pepper: str
    admin_token: str
    sandbox_key: str
    team_key: str | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"

    def environment(self) -> dict[str, str]:
        return {
            "GATEWAY_SECRETS__MASTER_KEYS": self.master_key,
            "GATEWAY_SECRETS__KEY_PEPPER": self.key_pepper,
            "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": self.admin_token,
        }

    def with_team_key(self, team_key: str) -> Secrets:
        return replace(self, team_key=team_key)

    def save(self, folder: Path) -> None:
        _write(folder / SECRETS_FILE, json.dumps(asdict(self), indent=2) + "\n")


def load_secrets(folder: Path) -> Secrets:
    """The folder's secrets, made at the first start."""
    path = folder / SECRETS_FILE
    if path.exists():
        return Secrets(**json.loads(path.read_text()))
    made = Secrets(
        master_key=random.token_urlsafe(32),
        key_pepper=random.token_urlsafe(32),
        admin_token=make(ADMIN_TOKEN).text,
        sandbox_key=f"sk_demo_{random.token_hex(12)}",
    )
    made.save(folder)
    return made


def sandbox_port(folder: Path) -> int:
    """The sandbox's port of the last start while it is free, so that links in earlier answers work; else a new one."""
    try:
        return _bound_port(int((folder / PORT_FILE).read_text()))
    except (OSError, ValueError, OverflowError):
        return _bound_port(0)


def _bound_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def keep_port(folder: Path, port: int) -> None:
    _write(folder / PORT_FILE, f"{port}\n")


def spool_folder(folder: Path) -> Path:
    """Where this gateway's large bodies and answers lie; there afterwards."""
    spool = folder.absolute() / SPOOL_FOLDER
    spool.mkdir(mode=0o700, exist_ok=True)
    return spool


def write_environment(folder: Path, environment: Mapping[str, str]) -> None:
    """A file to source in another terminal, so that the other commands act on this gateway."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in environment.items()]
    _write(folder / ENVIRONMENT_FILE, "".join(lines))


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
