"""Three gateways behind HAProxy on one Postgres and one Redis: replaced one by one, one killed, and no SDK notices.

`make scale-out SECONDS=600` chooses how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.deploy.proxies import free_port, program, proxy
from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, MODEL, Rig, rig
from tests.e2e.harness import Process, eventually

SECONDS = float(os.environ.get("PXG_SCALE_OUT_SECONDS", "0"))
REPLACE_EVERY = max(6.0, SECONDS / 20)
KILL_AT = 0.55  # of the run
CALLS = 200  # what one team's quota is enough for
PER_MINUTE = 30  # what another team may
PRICE = 2
SETTINGS = {
    "GATEWAY_SERVER__DRAIN_SECONDS": "12",
    # Longer than HAProxy takes to notice (two checks, 2 s apart), so that nobody asks a process that is about to go.
    "GATEWAY_SERVER__DRAIN_MIN_SECONDS": "5",
}

pytestmark = [
    pytest.mark.skipif(not SECONDS, reason="three gateways behind HAProxy are tried by: make scale-out"),
    pytest.mark.skipif(program("haproxy") is None, reason="Debian's package 'haproxy' is not installed"),
    pytest.mark.timeout(SECONDS + 240),
]


@dataclass
class Slots:
    """The processes by their ports; one that was stopped or killed is started again at its port."""

    environment: dict[str, str]
    stack: contextlib.ExitStack
    ports: list[int]
    running: dict[int, Process] = field(default_factory=dict)

    def start(self, port: int) -> None:
        own = self.environment | {"GATEWAY_SERVER__PORT": str(port)}
        self.running[port] = self.stack.enter_context(harness.beside(own))

    def replace(self, port: int) -> None:
        assert self.running[port].stop() == 0, self.running[port].text()[-2000:]
        self.start(port)

    def kill(self, port: int) -> None:
        self.running[port].child.send_signal(signal.SIGKILL)
        self.running[port].child.wait(10)
        self.start(port)


@dataclass
class Seen:
    """What clients were told in the end, their SDK's own retries behind them."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[tuple[float, str]] = field(
        default_factory=list
    )  # when the call was begun, and what it came to
    slowest: float = 0.0
    stopped: bool = False

    @contextlib.asynccontextmanager
    async def noted(self, kind: str) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            yield
        except openai.APIStatusError as error:
            self.answers[kind, error.status_code] += 1
            if error.status_code >= 500:
                self.failures.append((began, f"{kind} {error.status_code} {error.body}"))
        except openai.APIConnectionError as error:
            self.answers[kind, 0] += 1
            self.failures.append((began, f"{kind} {error!r} {error.__cause__!r}"))
        else:
            self.answers[kind, 200] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


@pytest.fixture
def one(database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(database_url, redis_url, SETTINGS) as found:
        found.gateway.call("PATCH", f"/teams/{found.team}", json={"requests_per_minute": 100_000})
        yield found


async def test_three_gateways_are_replaced_and_one_is_killed(one: Rig, tmp_path: Path) -> None:
    exact = one.gateway.team("Exact", quota={"period": "total", "limit": CALLS * PRICE})["slug"]
    paced = one.gateway.team("Paced", unlimited=True, requests_per_minute=PER_MINUTE)["slug"]
    keys = {"plain": one.key, "exact": one.gateway.key(exact), "paced": one.gateway.key(paced)}
    with contextlib.ExitStack() as stack:
        slots = Slots(one.gateway.environment, stack, [free_port() for _ in range(3)])
        for port in slots.ports:
            await asyncio.to_thread(slots.start, port)
        front = stack.enter_context(proxy("haproxy", tmp_path, *slots.ports))
        seen, killed, replaced, began = Seen(), 0.0, 0, time.monotonic()
        await asyncio.sleep(5)  # two checks of each
        clients = [
            openai.AsyncOpenAI(
                base_url=f"{front.secure}/v1",
                api_key=keys[name],
                max_retries=5,
                timeout=20,
                http_client=openai.DefaultAsyncHttpxClient(verify=False),
            )
            for name in ("plain", "plain", "plain", "plain", "exact", "exact", "paced")
        ]
        work = [
            generate(clients[0], seen, "sync", "delay=0.05"),
            generate(clients[1], seen, "slow", "delay=2"),
        ]
        work += [submit_and_poll(clients[2], seen), submit_and_poll(clients[3], seen)]
        work += [generate(client, seen, "exact", "delay=0.1", 1.0) for client in clients[4:6]]
        work.append(generate(clients[6], seen, "paced", "delay=0.05", 0.2))
        async with asyncio.TaskGroup() as group:
            for one_of_them in work:
                group.create_task(one_of_them)
            while (elapsed := time.monotonic() - began) < SECONDS:
                await asyncio.sleep(REPLACE_EVERY)
                if not killed and elapsed > KILL_AT * SECONDS:
                    killed = time.monotonic()
                    await asyncio.to_thread(slots.kill, slots.ports[0])
                else:
                    await asyncio.to_thread(slots.replace, slots.ports[replaced % 3])
                    replaced += 1
            seen.stopped = True
        minutes = (time.monotonic() - began) / 60
        for client in clients:
            await client.close()
        await asyncio.to_thread(settles, one)
        told = sum(count for (_, status), count in seen.answers.items() if status == 200)
        print(
            f"\n{minutes:.1f} minutes, {told} answers, {replaced} replaced, 1 killed, slowest {seen.slowest:.1f} s\n"
            f"{dict(seen.answers)}\nfailures: {[(round(at - began), text) for at, text in seen.failures]}"
        )
        # What a killed process had sent may have been executed: its client is told so, or its repeats wait in vain, as
        # nobody knows yet that the process is gone. Nobody else is told anything.
        in_vain = ("upstream_outcome_unknown", "APITimeoutError")
        lost = [text for at, text in seen.failures if any(word in text for word in in_vain) and at <= killed]
        assert [text for _, text in seen.failures] == lost
        assert len(lost) <= len(work)
        assert {status for _, status in seen.answers} <= {200, 402, 429, 502, 504}
        limits_are_exact(one, exact, seen, minutes)
        proof = one.gateway.call("GET", "/ledger/verify")
        assert (proof["ok"], proof["differences"]) == (True, [])


async def generate(client: openai.AsyncOpenAI, seen: Seen, kind: str, fault: str, pause: float = 0.0) -> None:
    number = 0
    while not seen.stopped:
        number += 1
        async with seen.noted(kind):
            prompt = f"Cup {kind} {id(client)} {number} [fault:{fault}]"  # no two alike
            await client.images.generate(model=MODEL, prompt=prompt)
        await asyncio.sleep(pause)


async def submit_and_poll(client: openai.AsyncOpenAI, seen: Seen) -> None:
    number = 0
    while not seen.stopped:
        number += 1
        task: Any = None
        async with seen.noted("submit"):
            body = {"model": MODEL, "prompt": f"Later {id(client)} {number}"}
            task = await client.post(ASYNC.removeprefix("/v1"), cast_to=object, body=body)
        while task is not None and task["status"] not in ("completed", "failed") and not seen.stopped:
            await asyncio.sleep(0.1)
            async with seen.noted("poll"):
                task = await client.get(f"/tasks/{task['id']}", cast_to=object)


def settles(one: Rig) -> None:
    """No hold is left but those of the killed process's calls."""

    def concluded() -> bool:
        held = one.rows("SELECT request_id FROM holds WHERE state = 'held' AND task_id IS NOT NULL")
        return not held

    eventually(concluded, 60, every=0.5)


def limits_are_exact(one: Rig, exact: str, seen: Seen, minutes: float) -> None:
    (row,) = one.rows(
        "SELECT c.settled, c.held, q.limit_micro FROM quota_periods c JOIN quotas q ON q.id = c.quota_id"
        " JOIN teams t ON t.id = q.team_id WHERE t.slug = 'exact'"
    )
    used = row["settled"] + row["held"]
    assert used <= row["limit_micro"], exact
    if seen.answers["exact", 402]:
        assert used == row["limit_micro"]
    assert PRICE * seen.answers["exact", 200] * 1_000_000 <= used
    # Its SDK waits as long as it is told to, so it sees no refusal; all of an allowance may be used at once at first.
    assert seen.answers["paced", 200] <= PER_MINUTE * (minutes + 1)
