"""Bodies of many megabytes: answers of base64, and edits with files; one, and eight at once."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from benchmarks.compare.bench import FAILED, Bench, take_turns
from benchmarks.compare.lab import BEHAVING
from benchmarks.compare.nginx import MODEL
from benchmarks.compare.paid import PATH, order
from benchmarks.compare.proc import MIB, Peak
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import CannotError, Target

MEGABYTE = 1_000_000
ANSWER, FORM = 100, 63  # megabytes of base64, and 10^6 bytes of form
WARMING = 3  # megabytes: enough for the disk
ONE, EIGHT = "one", "eight at once"
POINTS = {ONE: 1, EIGHT: 8}
EDITS = "/v1/images/edits"
TURNS = 2  # rounds, for these take long
_BUFFER = 1024 * 1024
_BOUNDARY = "----bench-boundary-7"
METRICS = (
    Metric("rate", "MB/s", 0),
    Metric("growth", "growth MiB", 1),
    Metric("cpu", "CPU s/GB", 2),
    Metric("seconds", "seconds", 2),
    FAILED,
)


class Answers:
    """100 MB of base64 in one answer."""

    name = "answers"
    title = "Answer of 100 MB base64"
    metrics: Sequence[Metric] = METRICS

    def run(self, bench: Bench) -> None:
        _measure(bench, self.name, ANSWER, answer)


class Edits:
    """63 MB of form with three files."""

    name = "edits"
    title = "Multipart edit of 63 MB"
    metrics: Sequence[Metric] = METRICS

    def run(self, bench: Bench) -> None:
        _measure(bench, self.name, FORM, edit)


Move = Callable[[Target, int], int]


def _measure(bench: Bench, name: str, megabytes: int, move: Move) -> None:
    def turn(target: Target, point: str) -> Sample:
        count = POINTS[point]
        peak = None if target.pid is None else Peak(target.pid)
        with bench.lab.measured(target) as spent, ThreadPoolExecutor(count) as threads:
            began = time.perf_counter()
            statuses = list(threads.map(lambda _: move(target, megabytes), range(count)))
            seconds = time.perf_counter() - began
        good = statuses.count(200)
        values = {"failed": float(count - good), "seconds": seconds}
        if good:
            values["rate"] = good * megabytes / seconds
        if peak is not None:
            values["growth"] = peak.growth() / MIB
            if good:
                values["cpu"] = spent.target / (good * megabytes / 1000)
        return Sample(values, spent.noise)

    def warm(target: Target, _: str) -> None:
        status = move(target, WARMING)
        if status != 200:
            raise CannotError(f"answers {status}")

    targets = bench.lab.targets(bench.names(), BEHAVING)
    take_turns(bench, name, list(POINTS), targets, turn, rounds=min(TURNS, bench.options.rounds), warm=warm)


def answer(target: Target, megabytes: int) -> int:
    """Gets one large answer and throws it away; its status, 0 when it was cut."""
    body = order(f"stub:b64={megabytes}").encode()
    return _send(target, PATH, "application/json", body, megabytes * MEGABYTE)


def edit(target: Target, megabytes: int) -> int:
    """Sends one large form; its status."""
    return _send(target, EDITS, f"multipart/form-data; boundary={_BOUNDARY}", form(megabytes), 1)


@cache
def form(megabytes: int) -> bytes:
    """A form of three files of noise, `megabytes` in all but for some hundred bytes."""
    fields = {"model": MODEL, "prompt": "Put these together", "n": "1"}
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in fields.items()
    ]
    noise = random.Random(megabytes)
    for number in range(3):
        head = f'Content-Disposition: form-data; name="image[]"; filename="{number}.png"\r\nContent-Type: image/png'
        parts.append(f"{head}\r\n\r\n".encode() + noise.randbytes(megabytes * MEGABYTE // 3))
    mark = f"--{_BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def _send(target: Target, path: str, kind: str, body: bytes, least: int) -> int:
    """Posts by a blocking socket and reads until the other side closes; 0 when less than `least` bytes came."""
    more = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {target.token}\r\nconnection: close\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    )
    received, start, room = 0, b"", bytearray(_BUFFER)
    with socket.create_connection(("127.0.0.1", target.port), timeout=120) as connection:
        try:
            connection.sendall(head.encode())
            connection.sendall(body)
            while size := connection.recv_into(room):
                start = start or bytes(room[:20])
                received += size
        except OSError:
            return 0
    status = int(start.split(b" ")[1]) if start.startswith(b"HTTP/1.") else 0
    return status if status != 200 or received >= least else 0
