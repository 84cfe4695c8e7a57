"""64 MiB up and 100 MB down through one gateway: unchanged, in little memory, and nothing left in the temp folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, Process, eventually
from tests.e2e.memory import MIB, Memory, open_files_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

MODEL = "gemini-2.5-flash-image"
LARGEST_GROWTH = 32 * MIB
LARGEST_FORM = 64 * MIB
LARGE_ANSWER = 100_000_000
BOUNDARY = "----two-words-and-a-number-7"


@dataclass(frozen=True)
class Bench:
    """A gateway whose temporary files go to `spool`, a sandbox's control API, and a team's client."""

    gateway: Gateway
    pixapi: httpx.Client
    client: httpx.Client
    spool: Path

    @property
    def pid(self) -> int:
        return self.gateway.process.child.pid

    def last_sent(self) -> dict[str, Any]:
        entries = self.pixapi.get("/sandbox/journal?limit=50").raise_for_status().json()["data"]
        last: dict[str, Any] = [entry for entry in entries if entry["method"] == "POST"][-1]
        return last

    def named_files(self) -> list[Path]:
        """What a listing of the folder and of those in it shows, but for answers that were got seconds ago."""
        return [path for path in self.spool.rglob("*") if path.is_file() and path.parent != self.answers]

    @property
    def answers(self) -> Path:
        """Where large answers lie for a repeat."""
        return self.spool / "pixapi-gateway-answers"

    def all_closed(self, pid: int | None = None) -> bool:
        return not open_files_in(pid or self.pid, self.spool)


@pytest.fixture(scope="module")
def bench(
    module_database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    spool = tmp_path_factory.mktemp("spool")
    environment = {"GATEWAY_SERVER__SPOOL_DIR": str(spool)}
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base, environment) as gateway,
        httpx.Client(base_url=sandbox.base, timeout=60, trust_env=False) as pixapi,
    ):
        gateway.upstream_key("sk_acct_5c1d0b9e27aa4f6fb3", "first", account="acct")
        with gateway.client(gateway.key(gateway.team()["slug"])) as client:
            found = Bench(gateway, pixapi, client, spool)
            warm_up(found)
            yield found


def warm_up(bench: Bench) -> None:
    """Every code path once, with bodies large enough for the disk."""
    upload(bench.client, form(3 * MIB))
    with answer_of(bench.client, megabytes=3) as answer:
        for _ in answer.iter_raw():
            pass


def form(size: int) -> bytes:
    """A form of exactly `size` bytes with three files of noise."""
    fields = {"model": MODEL, "prompt": "Put these together", "n": "1"}
    parts = [
        f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()
    ]
    heads = [
        f'\r\nContent-Disposition: form-data; name="image[]"; filename="{number}.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
        for number in range(3)
    ]
    mark, end = f"--{BOUNDARY}", f"\r\n--{BOUNDARY}--\r\n"
    text = mark + "".join(f"{part}\r\n{mark}" for part in parts)
    around = len(text) + sum(map(len, heads)) + 2 * len(f"\r\n{mark}") + len(end)
    noise = random.Random(size)
    files = [noise.randbytes((size - around) // 3) for _ in range(2)]
    files.append(noise.randbytes(size - around - 2 * len(files[0])))
    between = f"\r\n{mark}".encode()
    whole = text.encode() + between.join(
        head.encode() + file for head, file in zip(heads, files, strict=True)
    )
    return whole + end.encode()


def upload(client: httpx.Client, body: bytes) -> httpx.Response:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = client.post("/v1/images/edits", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def answer_of(client: httpx.Client, megabytes: int) -> contextlib.AbstractContextManager[httpx.Response]:
    order = {"model": MODEL, "prompt": f"A wall [fault:big={megabytes}]", "response_format": "b64_json"}
    return client.stream("POST", "/v1/images/generations", json=order)


@contextlib.contextmanager
def watched(bench: Bench) -> Iterator[set[str]]:
    """Meanwhile: what the temp folder lists (`named …`) and what the gateway holds open in it (`open`)."""
    seen = set[str]()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            seen.update(f"named {path.name}" for path in bench.spool.iterdir() if path != bench.answers)
            seen.update("open" for _ in open_files_in(bench.pid, bench.spool))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_upload(bench: Bench) -> None:
    body = form(LARGEST_FORM)
    memory = Memory(bench.pid)
    with watched(bench) as seen:
        upload(bench.client, body)
    growth = memory.growth()
    print(f"64 MiB upload: {growth / MIB:.1f} MiB")
    assert growth < LARGEST_GROWTH
    sent = bench.last_sent()
    assert sent["body_length"] == LARGEST_FORM
    assert sent["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert [part["name"] for part in sent["parts"] if part["filename"]] == ["image[]"] * 3
    assert seen == {"open"}
    assert eventually(bench.all_closed)
    assert bench.named_files() == []


def test_answer(bench: Bench) -> None:
    memory = Memory(bench.pid)
    digest, size, start = hashlib.sha256(), 0, b""
    with watched(bench) as seen, answer_of(bench.client, LARGE_ANSWER // 1_000_000) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            digest.update(piece)
            size += len(piece)
            start += piece[: 100 - len(start)]
    growth = memory.growth()
    print(f"100 MB answer: {growth / MIB:.1f} MiB")
    assert growth < LARGEST_GROWTH
    assert size == int(answer.headers["content-length"]) > LARGE_ANSWER
    assert digest.hexdigest() == sandbox_answer(start)
    assert seen == {"open"}
    assert eventually(bench.all_closed)
    assert bench.named_files() == []


def sandbox_answer(start: bytes) -> str:
    """SHA-256 of what the sandbox sent, which is the same every time but for `created`."""
    head = start[: start.index(b'"AAAA') + 1]
    created = json.loads(head + b'"}]}')["created"]
    assert head == b'{"created":%d,"data":[{"b64_json":"' % created
    digest = hashlib.sha256(head)
    for _ in range(LARGE_ANSWER // 1_000_000):
        digest.update(b"A" * 1_000_000)
    digest.update(b'"}]}')
    return digest.hexdigest()


def half_an_upload(bench: Bench, process: Process) -> socket.socket:
    """A connection on which half of a large form has been sent; returns when the gateway has put it on disk."""
    body = form(LARGEST_FORM)
    head = (
        f"POST /v1/images/edits HTTP/1.1\r\nHost: 127.0.0.1:{process.port}\r\n"
        f"Authorization: {bench.client.headers['authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    connection.sendall(head.encode() + body[: len(body) // 2])
    eventually(lambda: not bench.all_closed(process.child.pid))
    return connection


def test_client_leaves_midway(bench: Bench) -> None:
    before = bench.last_sent()["id"]
    with half_an_upload(bench, bench.gateway.process):
        assert bench.named_files() == []
    assert eventually(bench.all_closed)
    assert bench.last_sent()["id"] == before
    with answer_of(bench.client, LARGE_ANSWER // 1_000_000) as answer:
        assert len(next(answer.iter_raw())) > 0
        assert not bench.all_closed()
    assert eventually(bench.all_closed)
    eventually(
        lambda: any(file.stat().st_size > LARGE_ANSWER for file in bench.answers.iterdir())
    )  # for a repeat
    assert bench.named_files() == []


def test_kill_leaves_nothing_behind(bench: Bench) -> None:
    before = bench.named_files()
    with harness.beside(bench.gateway.environment) as process, half_an_upload(bench, process):
        process.child.kill()
        process.child.wait()
        assert bench.named_files() == before
