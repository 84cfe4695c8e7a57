"""Twenty official SDK clients at once for PXG_SOAK_SECONDS (8): no error, and then every credit accounted for."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import openai
import psycopg
import pytest
from sqlalchemy import make_url

from gateway.sandbox.images import draw_png
from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually

CLIENTS = 20
SOAK_SECONDS = float(os.environ.get("PXG_SOAK_SECONDS", "8"))
MICRO = 1_000_000
IMAGE = "gemini-2.5-flash-image"
PHOTOS = [(f"{seed}.png", draw_png(seed, 64, 64), "image/png") for seed in range(3)]

pytestmark = [pytest.mark.long, pytest.mark.timeout(SOAK_SECONDS + 120)]


@dataclass
class Record:
    """Seconds of every request by what it was."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def timed(self, what: str, request: Awaitable[Any]) -> Any:
        began = time.monotonic()
        answer = await request
        self.seconds[what].append(time.monotonic() - began)
        return answer

    def table(self) -> str:
        lines = [f"{'':10} requests     p50     p99     max (ms)"]
        everything = list(itertools.chain.from_iterable(self.seconds.values()))
        for what, found in [*sorted(self.seconds.items()), ("all", everything)]:
            found.sort()
            p50, p99 = (found[min(len(found) - 1, int(len(found) * part))] for part in (0.5, 0.99))
            lines.append(f"{what:10} {len(found):8} {p50 * 1e3:7.0f} {p99 * 1e3:7.0f} {found[-1] * 1e3:7.0f}")
        return "\n".join(lines)


Act = Callable[[openai.AsyncOpenAI, Record], Awaitable[None]]


async def generate(client: openai.AsyncOpenAI, record: Record) -> None:
    answer = await record.timed("generate", client.images.generate(model=IMAGE, prompt="A cup", n=2))
    assert len(answer.data) == 2


async def edit(client: openai.AsyncOpenAI, record: Record) -> None:
    answer = await record.timed("edit", client.images.edit(model=IMAGE, prompt="Together", image=PHOTOS))
    assert answer.data[0].url


async def models(client: openai.AsyncOpenAI, record: Record) -> None:
    listed = await record.timed("models", client.models.list())
    assert IMAGE in {model.id for model in listed.data}


async def task(client: openai.AsyncOpenAI, record: Record) -> None:
    order = {"model": IMAGE, "prompt": "A cup, later"}
    made = await record.timed("submit", client.post("/async/images/generations", body=order, cast_to=object))
    async with asyncio.timeout(30):
        while True:
            seen = await record.timed("poll", client.get(f"/tasks/{made['id']}", cast_to=object))
            if seen["status"] == "completed":
                break
            await asyncio.sleep(0.25)
    assert seen["credits_cost"] == 2


async def one_client(base_url: str, key: str, number: int, record: Record) -> None:
    """What one team's process does until the time is up, beginning elsewhere than its neighbours."""
    acts: list[Act] = [generate, edit, models, task]
    until = time.monotonic() + SOAK_SECONDS
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        for act in itertools.islice(itertools.cycle(acts), number % len(acts), None):
            if time.monotonic() > until:
                return
            await act(client, record)


@pytest.fixture
def gateway(database_url: str, redis_url: str) -> Iterator[tuple[Gateway, httpx.Client]]:
    """A gateway, and its sandbox's control API."""
    with (
        harness.sandbox() as sandbox,
        harness.gateway(database_url, redis_url, sandbox.base) as found,
        httpx.Client(base_url=sandbox.base, timeout=30, trust_env=False) as pixapi,
    ):
        for number in range(3):
            found.upstream_key(f"sk_acct_c90a1be6d57f{number}", f"key {number}", account="acct")
        yield found, pixapi


async def test_twenty_clients_at_once(
    gateway: tuple[Gateway, httpx.Client], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served, pixapi = gateway
    keys = [served.key(served.team(f"Team {number}")["slug"]) for number in range(4)]
    record = Record()
    async with asyncio.TaskGroup() as clients:  # the first error ends them all
        for number in range(CLIENTS):
            key = keys[number % len(keys)]
            clients.create_task(one_client(f"{served.base}/v1", key, number, record))
    print(f"{CLIENTS} clients, {SOAK_SECONDS:g} s\n{record.table()}")
    assert set(record.seconds) == {"generate", "edit", "models", "submit", "poll"}
    log = served.process.text()
    assert '"level":"info"' in log
    assert '"level":"error"' not in log

    eventually(lambda: set(holds(database_url)) == {"settled"})
    (count, micro) = holds(database_url)["settled"]
    counters = pixapi.get("/sandbox/counters").raise_for_status().json()["data"]
    assert count == sum(one["executions"] for one in counters)
    assert count == sum(len(record.seconds[what]) for what in ("generate", "edit", "submit"))
    assert micro == sum(Decimal(str(one["credits"])) for one in counters) * MICRO


def holds(database_url: str) -> dict[str, tuple[int, int]]:
    """How many holds there are in each state, and what they settled at in millionths."""
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        rows = connection.execute(
            "SELECT state, count(*), coalesce(sum(settled), 0)::bigint FROM holds GROUP BY state"
        ).fetchall()
    return {state: (count, settled) for state, count, settled in rows}
