"""The stub that behaves as told by words in the prompt: an asyncio server of its own process, by hand, for speed.

`stub:delay=S` waits S seconds, `stub:b64=MB` answers with so many megabytes (10^6) of base64; a form is read whole.
`stub:run=1` submits a task that is unfinished until POST /stub/end.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import sys
from pathlib import Path

import uvloop

from benchmarks.compare.children import Child, free_port, listens
from benchmarks.compare.nginx import IMAGE, MODEL, MODELS

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:\s*100", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)
_WORD = re.compile(rb"stub:(delay|b64|run)=([0-9.]+)")
_PIECE = b"A" * 1_000_000
_WORDS_WITHIN = 64 * 1024  # bytes at the body's beginning that may hold words
BODY_BUFFER = 1024 * 1024


def start(folder: Path) -> tuple[Child, int]:
    """The stub as a child process, and its port."""
    port = free_port()
    child = Child([sys.executable, "-m", "benchmarks.compare.behaving", str(port)], folder / "behaving.log")
    child.wait_until(lambda: listens(port))
    return child, port


class Stub:
    """All connections' memory: how many tasks were made, and whether they still run."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._run = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until it is closed."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if _EXPECT.search(head):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                start = await _body(reader, head)
                await self._answer(head.split(b" ", 2)[:2], start, writer)
                await writer.drain()
                if _CLOSE.search(head):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: list[bytes], body: bytes, writer: asyncio.StreamWriter) -> None:
        path = line[1].decode("latin-1").split("?")[0]
        words = {name: float(value) for name, value in _WORD.findall(body)}
        if delay := words.get(b"delay"):
            await asyncio.sleep(delay)
        if megabytes := words.get(b"b64"):
            await _send_large(writer, int(megabytes))
        elif path == "/stub/end":
            self._run = False
            _send(writer, "{}")
        elif path == "/v1/models":
            _send(writer, MODELS)
        elif path.startswith("/v1/async/"):
            kind = "run" if b"run" in words else "end"
            _send(writer, task_answer(f"task_{next(self._numbers)}_{kind}", "submitted"))
        elif path.startswith("/v1/tasks/"):
            task = path.rsplit("/", 1)[1]
            _send(
                writer,
                task_answer(task, "processing" if self._run and task.endswith("_run") else "completed"),
            )
        else:
            _send(writer, IMAGE)


def task_answer(task: str, status: str) -> str:
    start = f'{{"id":"{task}","status":"{status}","model":"{MODEL}","created":1761000000,"progress":'
    if status != "completed":
        return f"{start}10}}"
    result = '{"type":"image","data":[{"url":"https://files.example.com/picture.png"}]}'
    return f'{start}100,"credits_cost":2,"completed":1761000009,"result":{result}}}'


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Reads the whole body and keeps its beginning."""
    kept = b""
    if _CHUNKED.search(head):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            kept = await _take(reader, size, kept)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif found := _LENGTH.search(head):
        kept = await _take(reader, int(found[1]), kept)
    return kept


async def _take(reader: asyncio.StreamReader, size: int, kept: bytes) -> bytes:
    while size:
        piece = await reader.read(min(size, BODY_BUFFER))
        if not piece:
            raise asyncio.IncompleteReadError(kept, size)
        size -= len(piece)
        if len(kept) < _WORDS_WITHIN:
            kept += piece[:_WORDS_WITHIN]
    return kept


def _send(writer: asyncio.StreamWriter, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def _send_large(writer: asyncio.StreamWriter, megabytes: int) -> None:
    start, end = b'{"created":1761000000,"data":[{"b64_json":"', b'"}]}'
    length = len(start) + megabytes * len(_PIECE) + len(end)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    writer.write(head.encode() + start)
    for _ in range(megabytes):
        writer.write(_PIECE)
        await writer.drain()
    writer.write(end)


async def _main(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    server = await asyncio.start_server(Stub().serve, sock=listener, backlog=4096, limit=BODY_BUFFER)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
