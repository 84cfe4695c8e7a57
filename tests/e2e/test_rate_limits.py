"""Limits of keys and teams over two processes: exact, never in the way of polls, and in flight as long as the call."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually

MODEL = "gemini-2.5-flash-image"
SLOW_SECONDS = 2.0

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """`one` is asked by its admin API; `other` is the address of its equal."""

    one: Gateway
    other: str

    @contextmanager
    def clients(self, team: dict[str, Any], **limits: int) -> Iterator[list[httpx.Client]]:
        """A client of each process with a new key of the team."""
        key = self.one.key(team["slug"], **limits)
        with self.one.client(key) as one, self.one.client(key) as other:
            other.base_url = httpx.URL(self.other)
            yield [one, other]

    def team(self, **limits: int) -> dict[str, Any]:
        return self.one.team(f"Team {next(_numbers)}", unlimited=True, **limits)


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base) as one,
        harness.beside(one.environment) as other,
    ):
        one.upstream_key(f"sk_acct_7b21e0c4d9{next(_numbers):04d}", "main", account="acct")
        found = Pair(one, other.base)
        with found.clients(found.team()) as clients:
            for client in clients:
                eventually(lambda client=client: generate(client).status_code == 200, 10, every=0.1)
        yield found


def generate(client: httpx.Client, prompt: str = "A cup") -> httpx.Response:
    return client.post("/v1/images/generations", json={"model": MODEL, "prompt": prompt})


def test_a_rate_is_exact_over_processes_and_what_is_refused_is_not_held(pair: Pair) -> None:
    team = pair.team()
    with pair.clients(team, requests_per_minute=5) as clients, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(generate, clients * 10))
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["reason"] == "requests_per_minute"
        headers = refused.headers
        assert headers["x-ratelimit-limit-requests"] == "5"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-should-retry"] == "true"
        assert 1 <= int(headers["retry-after"]) <= 12
        assert 0 < int(headers["retry-after-ms"]) <= 12_000
        assert {client.get("/v1/models").status_code for client in clients * 20} == {200}
    rows = pair.one.call("GET", "/usage", params={"by": "team"})["data"]
    assert [row["requests"] for row in rows if row["team"] == team["slug"]] == [5]


def test_one_at_a_time_is_enough_for_who_waits_for_each_answer(pair: Pair) -> None:
    """The slot is free before the answer is there, in every process."""
    with pair.clients(pair.team(max_in_flight=1)) as clients:
        assert [generate(clients[n % 2]).status_code for n in range(40)] == [200] * 40


def test_a_call_counts_until_it_ends_not_until_its_client_leaves(pair: Pair) -> None:
    with pair.clients(pair.team(max_in_flight=1)) as (one, other):
        began = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            one.post(
                "/v1/images/generations",
                json={"model": MODEL, "prompt": f"[fault:delay={SLOW_SECONDS:g}] A cup"},
                timeout=0.5,
            )
        refused = generate(other)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "calls_in_flight")
        assert "max_in_flight" in refused.json()["error"]["message"]
        assert refused.headers["x-ratelimit-reset-requests"] == "1s"
        eventually(lambda: generate(other).status_code == 200, SLOW_SECONDS + 5, every=0.05)
        assert time.monotonic() - began > SLOW_SECONDS
