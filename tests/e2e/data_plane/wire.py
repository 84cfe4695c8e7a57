"""A client that sends exactly the bytes it is given and reads answers one by one."""

from __future__ import annotations

import contextlib
import socket
from types import TracebackType
from typing import Self

import httpx

DEADLINE = 15.0  # seconds; nothing here takes a tenth of it


class Wire:
    """One TCP connection to a port of this machine. A context manager that closes it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Sends; a server that has stopped reading is no failure, its answer tells."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def end_sending(self) -> None:
        """Half-closes: the server sees the end of what was sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self, *, to_head: bool = False) -> httpx.Response:
        """The next answer, interim ones too. Raises ConnectionError when the connection ends before it is whole."""
        head = self._until(b"\r\n\r\n")
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        status = int(line.split(" ")[1])
        length = {name.lower(): value for name, value in headers}.get("content-length", "0")
        body = b"" if to_head or status < 200 else self._exactly(int(length))
        return httpx.Response(status, headers=headers, content=body)

    def rest(self) -> bytes:
        """Everything that still comes until the server ends the connection."""
        found = self._unread
        with contextlib.suppress(ConnectionError):
            while piece := self._socket.recv(65536):
                found += piece
        return found

    def is_closed(self) -> bool:
        """Whether the server ends the connection, sending nothing more."""
        return self.rest() == b""

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            self._unread += self._piece()
        head, _, self._unread = self._unread.partition(mark)
        return head + mark

    def _exactly(self, length: int) -> bytes:
        while len(self._unread) < length:
            self._unread += self._piece()
        body, self._unread = self._unread[:length], self._unread[length:]
        return body

    def _piece(self) -> bytes:
        piece = self._socket.recv(65536)
        if not piece:
            raise ConnectionError(f"the connection ended after {self._unread[:200]!r}")
        return piece


def head(line: str, *fields: str) -> bytes:
    """A request head of these lines."""
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def chunked(*pieces: bytes, trailers: str = "") -> bytes:
    """A chunked body of these chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return body + b"0\r\n" + trailers.encode("latin-1") + b"\r\n"
