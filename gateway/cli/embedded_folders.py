"""The folders of the embedded servers: where the cluster may lie, where the sockets go, and who may use them now."""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from gateway.cli.embedded_binaries import Account, EmbeddedServerError, account_for, can_enter, shared_home

LOCK_SECONDS = 1.0
# 107 bytes on Linux, 103 on macOS, for the whole path of a socket; some names would need quoting in an address.
LONGEST_SOCKET_FOLDER = 85
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


def make_data_folder(data: Path) -> None:
    """Make `data` if it is absent, closed to others; one that exists keeps its mode."""
    if not data.exists():
        data.mkdir(parents=True)
        # Root's servers run as another user, who has to pass through; secrets in here are files of mode 0600.
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)


def lock_folder(data: Path) -> int:
    """Hold data/lock until the descriptor is closed or we die; EmbeddedServerError names the process that has it."""
    try:
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise EmbeddedServerError(f"{data} belongs to another user; choose another folder") from error
    # A process that was killed a moment ago keeps its lock until the kernel has taken it apart.
    deadline = time.monotonic() + LOCK_SECONDS
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EmbeddedServerError(
                f"{data} is in use by process {owner}; stop that first or choose another folder"
            )
        time.sleep(0.02)
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def choose_home(data: Path) -> tuple[Path, Account | None]:
    """The folder for cluster and sockets, and the account that runs the servers (None = ours).

    `data`, unless that account cannot get there; then a new folder below /var/lib, found again by
    data/cluster-location. Never by a name computed from `data` alone: a folder that was deleted and made anew
    must not find the old cluster, whose secrets are gone.
    """
    note = data / "cluster-location"
    home = Path(note.read_text().strip()) if note.exists() else data
    if not home.is_dir():
        raise EmbeddedServerError(f"{note} names {home}, which is gone; remove {data} to begin anew")
    account = account_for(home / "postgres")
    if account and not note.exists() and not (data / "postgres").exists() and not can_enter(data, account):
        prefix = hashlib.sha256(os.fsencode(data)).hexdigest()[:8] + "-"
        home = Path(tempfile.mkdtemp(prefix=prefix, dir=shared_home()))
        home.chmod(0o711)
        note.write_text(f"{home}\n")
    return home, account


def make_socket_folder(home: Path, account: Account | None) -> Path:
    """An empty private folder with a path short and plain enough for sockets: home/run, else one in /tmp."""
    folder = home / "run"
    if len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER or not PLAIN_PATH.fullmatch(str(folder)):
        folder = Path(tempfile.mkdtemp(prefix="pixapi-gateway-", dir="/tmp"))
    make_private_folder(folder, account)
    return folder


def make_private_folder(folder: Path, account: Account | None) -> None:
    """`folder` anew: empty, mode 0700, owned by whoever runs the servers."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    if account:
        os.chown(folder, account.uid, account.gid)
