"""A Redis or Valkey server of one test alone, which it may break as it likes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.cli.embedded import valkey_answers
from gateway.cli.embedded_binaries import account_for, find_binaries
from gateway.cli.embedded_process import ServerProcess

START_SECONDS = 20.0


class OwnValkey:
    """A server that can be killed and started again on the same TCP port; its data is gone then."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._account = account_for(folder / "postgres")
        self._binary = find_binaries(self._account).valkey
        self._process: ServerProcess | None = None
        if self._account:
            os.chown(folder, self._account.uid, self._account.gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        process = ServerProcess("Valkey", self._folder / "log", self._account, signal.SIGKILL)
        listen = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocketperm", "700"]
        listen += ["--unixsocket", str(self._folder / "valkey.sock")]
        process.start(
            [self._binary, *listen, "--save", "", "--appendonly", "no", "--dir", self._folder, *self._options]
        )
        self._process = process
        process.wait_ready(lambda: valkey_answers(self._folder), time.monotonic() + START_SECONDS)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        if self._process is not None:
            self._process.stop(time.monotonic() + 5)
            self._process = None


@contextmanager
def own_valkey(*options: str) -> Iterator[OwnValkey]:
    """A running server with these command line options more, killed when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="pxg-valkey-", dir="/tmp"))
    server = OwnValkey(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
