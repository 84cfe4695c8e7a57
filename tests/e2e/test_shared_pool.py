"""Two small gateway processes on one pool: rests, caps and weights hold for both; floods are turned away at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, SYNC, caller, digest_of, new_account, new_secret, order
from tests.e2e.harness import Gateway, Process, eventually

SEATS = 20
FLOOD, CONNECTIONS = 2000, 25
IN_TIME = 0.05

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """`one` is asked by its admin API; `other` is its equal."""

    sandbox: Process
    one: Gateway
    other: Process

    def add(self, account: str | None = None, **fields: Any) -> str:
        """An upstream key that both processes know: its secret."""
        account = account or new_account()
        secret = new_secret(account)
        label = f"shared {next(_numbers)}"
        self.one.upstream_key(secret, label, account=account, **fields)
        series = f'gateway_upstream_key_rests{{upstream_key="{label}",use="paid"}}'
        eventually(
            lambda: all(series in self.metrics(base) for base in (self.one.base, self.other.base)), every=0.1
        )
        return secret

    def metrics(self, base: str) -> str:
        """What one of the two exposes."""
        return httpx.get(f"{base}/metrics", headers=self.one.admin.headers, verify=False).text

    def paid(self, secret: str) -> int:
        """How many paid calls reached Pixapi with the key."""
        with caller(self.sandbox.base) as control:
            entries = control.get("/sandbox/journal?limit=1000").json()["data"]
        return sum(one["method"] == "POST" and one["key_sha256"] == digest_of(secret) for one in entries)

    def arm(self, secret: str, marker: str) -> None:
        with caller(self.sandbox.base) as control:
            fault = {"marker": marker, "key": digest_of(secret), "times": None}
            control.post("/sandbox/faults", json=fault).raise_for_status()


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    small = {"GATEWAY_SERVER__MAX_PAID_IN_FLIGHT": str(SEATS)}
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base, small) as one,
        harness.beside(one.environment) as other,
    ):
        yield Pair(sandbox, one, other)


@pytest.fixture
def team(pair: Pair) -> Iterator[str]:
    """A team key; afterwards the pool is empty again."""
    yield pair.one.key(pair.one.team(f"Team {next(_numbers)}")["slug"])
    for key in pair.one.call("GET", "/upstream-keys")["data"]:
        pair.one.call("DELETE", f"/upstream-keys/{key['id']}?force=true")
    with caller(pair.sandbox.base) as control:
        control.delete("/sandbox/faults").raise_for_status()


def test_a_rest_that_one_process_learns_counts_at_the_other_within_a_second(pair: Pair, team: str) -> None:
    empty = pair.add(weight=1000)
    well = pair.add()
    pair.arm(empty, "status=402 shape=string")
    with caller(pair.one.base, team) as one, caller(pair.other.base, team) as other:
        eventually(lambda: one.post(SYNC, json=order()) and pair.paid(empty) == 1)
        time.sleep(1.0)  # the promise itself
        for _ in range(10):
            assert other.post(SYNC, json=order()).status_code == 200
    assert (pair.paid(empty), pair.paid(well) >= 10) == (1, True)


@pytest.mark.long
def test_caps_and_weights_hold_for_both_together(pair: Pair, team: str) -> None:
    capped = pair.add(weight=1000, max_in_flight=3)
    light, heavy = pair.add(weight=1), pair.add(weight=3)
    slow = order("[fault:delay=1.5]")
    with (
        caller(pair.one.base, team) as one,
        caller(pair.other.base, team) as other,
        ThreadPoolExecutor(2 * 11) as threads,
    ):
        calls = [threads.submit(client.post, SYNC, json=slow) for client in (one, other) * 11]
        assert Counter(call.result().status_code for call in calls) == {200: 22}
    assert pair.paid(capped) == 3
    assert pair.paid(heavy) / pair.paid(light) == pytest.approx(3, rel=0.4)


@pytest.mark.long
def test_a_flood_beyond_the_seats_is_turned_away_at_once_and_polls_go_on(pair: Pair, team: str) -> None:
    pair.add()
    with caller(pair.one.base, team) as client, ThreadPoolExecutor(SEATS) as threads:
        task = client.post(ASYNC, json=order("[fault:stuck]")).json()["id"]
        slow = [threads.submit(client.post, SYNC, json=order("[fault:delay=5]")) for _ in range(SEATS)]
        eventually(lambda: _metric(pair, "gateway_paid_calls_in_flight") == SEATS)
        holds = _requests(client)
        before = _in_time(pair)
        statuses, polls = asyncio.run(_flood(pair.one.base, team, task))
        quick, all_of_them = (after - was for after, was in zip(_in_time(pair), before, strict=True))
        assert statuses == {(503, "overloaded", "true"): FLOOD}
        assert all_of_them == FLOOD
        assert quick >= 0.95 * FLOOD  # what is missing, a busy test machine has made wait
        assert len(polls) >= 3
        assert max(polls) < 2.0
        assert _requests(client) == holds
        assert Counter(call.result().status_code for call in slow) == {200: SEATS}


@pytest.mark.long
def test_one_team_s_flood_does_not_slow_another(pair: Pair, team: str) -> None:
    pair.add()
    loud = pair.one.team(f"Loud {next(_numbers)}", unlimited=True, max_in_flight=5, requests_per_minute=60)
    key = pair.one.key(loud["slug"])
    found = asyncio.run(_beside_a_flood(pair.one.base, loud=key, quiet=team))
    print(f"paid calls beside a flood: median {sorted(found)[len(found) // 2] * 1000:.0f} ms")
    assert sorted(found)[len(found) // 2] < 0.75


async def _flood(base: str, key: str, task: str) -> tuple[Counter[tuple[int, str, str]], list[float]]:
    """What `FLOOD` paid calls over `CONNECTIONS` connections were answered, and seconds of polls meanwhile."""
    left, found, polls = itertools.count(), Counter[tuple[int, str, str]](), list[float]()

    async def send() -> None:
        async with _Connection(base, key) as connection:
            while next(left) < FLOOD:
                status, hint, document = await connection.ask("POST", SYNC, order())
                found[status, document["error"]["type"], hint] += 1

    async def poll() -> None:
        async with _Connection(base, key) as connection:
            while found.total() < FLOOD:
                began = time.monotonic()
                assert (await connection.ask("GET", f"/v1/tasks/{task}"))[0] == 200
                polls.append(time.monotonic() - began)

    await asyncio.gather(poll(), *(send() for _ in range(CONNECTIONS)))
    return found, polls


class _Connection:
    """One connection that is kept, spoken to by hand: a client library takes longer than the gateway."""

    def __init__(self, base: str, key: str) -> None:
        self._port = httpx.URL(base).port
        self._key = key

    async def __aenter__(self) -> _Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, method: str, path: str, document: Any = None) -> tuple[int, str, Any]:
        """Status, `x-should-retry` and JSON of the answer."""
        body = b"" if document is None else json.dumps(document).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: 127.0.0.1:{self._port}",
            f"authorization: Bearer {self._key}",
        ]
        lines += ["content-type: application/json", f"content-length: {len(body)}"] if body else []
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        answer = await self._reader.readexactly(int(fields["content-length"]))
        return int(head[0].split()[1]), fields.get("x-should-retry", ""), json.loads(answer)


async def _beside_a_flood(base: str, *, loud: str, quiet: str) -> list[float]:
    """Seconds of the quiet team's paid calls while the loud one sends without end."""
    over, seconds = asyncio.Event(), list[float]()

    async def flood() -> None:
        headers = {"authorization": f"Bearer {loud}"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30, verify=False) as client:
            while not over.is_set():
                assert (await client.post(SYNC, json=order())).status_code in (200, 429)

    async def work() -> None:
        headers = {"authorization": f"Bearer {quiet}"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30, verify=False) as client:
            for _ in range(15):
                began = time.monotonic()
                assert (await client.post(SYNC, json=order())).status_code == 200
                seconds.append(time.monotonic() - began)
        over.set()

    await asyncio.gather(work(), *(flood() for _ in range(12)))
    return seconds


def _in_time(pair: Pair) -> tuple[float, float]:
    """How many paid requests the process has answered within `IN_TIME`, and in all."""
    name = f'gateway_request_seconds_bucket{{le="%s",route="{SYNC}"}}'
    return _metric(pair, name % IN_TIME), _metric(pair, name % "+Inf")


def _metric(pair: Pair, name: str) -> float:
    lines = (line.rpartition(" ") for line in pair.one.admin.get("/metrics").text.splitlines())
    return next((float(value) for found, _, value in lines if found == name), 0.0)


def _requests(client: httpx.Client) -> Any:
    """How many calls of the team got a hold."""
    return client.get("/gateway/usage").json()["totals"]["requests"]
