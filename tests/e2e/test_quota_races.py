"""Two gateway processes, one quota: exactly what it allows is admitted, sent and charged, with or without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import make_url

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually

MODEL = "gemini-2.5-flash-image"  # 2 credits an image, held and charged
PATH = "/v1/images/generations"
ORDER = {"model": MODEL, "prompt": "A cup"}
MICRO = 1_000_000
NO_REDIS = "redis://127.0.0.1:1/0"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """Type and message are those of a failure."""

    status: int
    type: str
    message: str


@dataclass(frozen=True)
class Pair:
    """Two equal processes, the sandbox behind them and the database below."""

    gateway: Gateway
    bases: tuple[str, str]
    sandbox: httpx.Client
    database: psycopg.Connection[dict[str, Any]]

    def team(self, limit: int) -> tuple[str, str]:
        """A team with a monthly quota: its id and a key."""
        team = self.gateway.team(f"Team {next(_numbers)}", quota={"period": "month", "limit": limit})
        return team["id"], self.gateway.key(team["slug"])

    def executions(self) -> int:
        found = self.sandbox.get("/sandbox/counters").raise_for_status().json()["data"]
        return sum(int(one["executions"]) for one in found)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        return self.database.execute(query, values).fetchall()

    def counter(self, team: str) -> tuple[int, int]:
        """(settled, held) of the team's only quota, in micro-credits."""
        row = self.rows(
            """
            SELECT c.settled, c.held FROM quota_periods c JOIN quotas q ON q.id = c.quota_id
            WHERE q.team_id = %s AND q.key_id IS NULL
            """,
            team,
        )
        return row[0]["settled"], row[0]["held"]

    def states(self, team: str) -> Counter[str]:
        return Counter(row["state"] for row in self.rows("SELECT state FROM holds WHERE team_id = %s", team))

    def flood(self, key: str, calls: int) -> list[Answer]:
        """Paid calls at once, half to each process."""
        return asyncio.run(self._flood(key, calls))

    async def _flood(self, key: str, calls: int) -> list[Answer]:
        headers = {"authorization": f"Bearer {key}"}
        wait = aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession(
            headers=headers, timeout=wait, connector=aiohttp.TCPConnector(limit=0)
        ) as session:

            async def call(number: int) -> Answer:
                async with session.post(f"{self.bases[number % 2]}{PATH}", json=ORDER) as answer:
                    error = {} if answer.ok else (await answer.json())["error"]
                    return Answer(answer.status, error.get("type", ""), error.get("message", ""))

            return await asyncio.gather(*(call(number) for number in range(calls)))


@contextlib.contextmanager
def pair_on(
    database_url: str, redis_url: str, environment: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    address = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with (
        harness.sandbox() as sandbox,
        harness.gateway(database_url, redis_url, sandbox.base, environment) as gateway,
        harness.beside(gateway.environment) as other,
        httpx.Client(base_url=sandbox.base, trust_env=False, timeout=30) as control,
        psycopg.connect(address, autocommit=True, row_factory=dict_row) as database,
    ):
        gateway.upstream_key("sk_races_0123456789abcdef", "races")
        pair = Pair(gateway, (gateway.base, other.base), control, database)
        _, key = pair.team(1000)
        for base in pair.bases:  # both have the upstream key and its models
            headers = {"authorization": f"Bearer {key}"}
            eventually(
                lambda base=base, headers=headers: (
                    httpx.post(
                        f"{base}{PATH}", json=ORDER, headers=headers, trust_env=False, timeout=30
                    ).is_success
                )
            )
        yield pair


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    with pair_on(module_database_url, redis_url) as found:
        yield found


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def exactly_ten(pair: Pair, calls: int) -> None:
    team, key = pair.team(20)
    before = pair.executions()
    answers = pair.flood(key, calls)
    assert statuses(answers) == {200: 10, 402: calls - 10}
    assert pair.executions() - before == 10
    assert pair.counter(team) == (20 * MICRO, 0)
    assert pair.states(team) == {"settled": 10}
    for answer in answers:
        if answer.status == 402:
            assert answer.type == "insufficient_quota"
            assert sum(numbers(answer.message)) + 2 > 20


def numbers(message: str) -> tuple[int, int]:
    """What a refusal says is used and held."""
    found = re.search(r"needs 2 credits, .*: limit 20, used (\d+), held (\d+), resets 20", message)
    assert found, message
    return int(found[1]), int(found[2])


def test_a_quota_for_ten_admits_exactly_ten_of_a_thousand(pair: Pair) -> None:
    exactly_ten(pair, 1000)


@pytest.mark.long
def test_without_redis_it_admits_exactly_ten_too(database_url: str) -> None:
    with pair_on(database_url, NO_REDIS) as pair:
        exactly_ten(pair, 200)


def test_a_keys_quota_below_the_teams_admits_exactly_its_own(pair: Pair) -> None:
    team, key = pair.team(20)
    pair.gateway.call("PUT", f"/keys/{key.split('_')[1]}/quotas/day", json={"limit": 6})
    answers = pair.flood(key, 60)
    assert statuses(answers) == {200: 3, 402: 57}
    assert all("the key's daily quota" in one.message for one in answers if one.status == 402)
    assert pair.counter(team) == (6 * MICRO, 0)
    slug = pair.rows("SELECT slug FROM teams WHERE id = %s", team)[0]["slug"]
    others = pair.flood(pair.gateway.key(slug), 60)
    assert statuses(others) == {200: 7, 402: 53}  # what the refused ones of the first key did not take
    assert pair.counter(team) == (20 * MICRO, 0)


def test_headers_and_the_refusals_arithmetic(pair: Pair) -> None:
    team, key = pair.team(5)
    with pair.gateway.client(key) as client:
        paid = client.post(PATH, json=ORDER)
        assert (paid.headers["x-credits-charged"], paid.headers["x-credits-remaining"]) == ("2", "3")
        assert "x-credits-held" not in paid.headers
        task = client.post("/v1/async/images/generations", json=ORDER).raise_for_status()
        assert (task.headers["x-credits-held"], task.headers["x-credits-remaining"]) == ("2", "1")
        assert "x-credits-charged" not in task.headers
        refused = client.post(PATH, json=ORDER)
        assert refused.status_code == 402
        assert refused.headers["x-should-retry"] == "false"
        message = refused.json()["error"]["message"]
        assert re.search(
            r"needs 2 credits, more than the team's monthly quota has left: limit 5, used ", message
        )
        used, held = (int(re.search(rf"{word} (\d+)", message)[1]) for word in ("used", "held"))  # type: ignore[index]
        assert used + held == 4
        eventually(lambda: client.get(f"/v1/tasks/{task.json()['id']}").json()["status"] == "completed")
        eventually(lambda: pair.counter(team) == (4 * MICRO, 0))
