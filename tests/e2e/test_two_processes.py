"""Two gateway processes on one Postgres and Redis behave as one."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually
from tests.e2e.pictures import fetch, png_size

MODEL = "gemini-2.5-flash-image"
REVOKED_WITHIN = 1.5  # one second by contract, and a half for the polls of this test
POOL_WITHIN = 5.0

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """`one` is asked by its admin API; `other` is the address of its equal."""

    one: Gateway
    other: str

    def team_key(self) -> str:
        return self.one.key(self.one.team(f"Team {next(_numbers)}")["slug"])

    @contextlib.contextmanager
    def clients(self, key: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
        """A client of each process with the same team key."""
        with self.one.client(key) as one, self.one.client(key) as other:
            other.base_url = httpx.URL(self.other)
            yield one, other

    @contextlib.contextmanager
    def upstream_key(self) -> Iterator[str]:
        """The pool's only active key meanwhile: its id."""
        number = next(_numbers)
        made = self.one.upstream_key(f"sk_acct_7b21e0c4d9{number:04d}", f"key {number}", account="acct")
        yield str(made["id"])
        self.one.call("POST", f"/upstream-keys/{made['id']}/disable")


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base) as one,
        harness.beside(one.environment) as other,
    ):
        yield Pair(one, other.base)


def generate(client: httpx.Client) -> int:
    """The status of a paid call."""
    return client.post("/v1/images/generations", json={"model": MODEL, "prompt": "A cup"}).status_code


def within(seconds: float, client: httpx.Client, status: int) -> float:
    """Seconds until a paid call of this client first has `status`."""
    began = time.monotonic()
    eventually(lambda: generate(client) == status, seconds, every=0.1)
    return time.monotonic() - began


def test_submitted_at_one_and_polled_at_the_other(pair: Pair) -> None:
    with pair.upstream_key(), pair.clients(pair.team_key()) as (one, other):
        within(POOL_WITHIN, other, 200)
        order = {"model": MODEL, "prompt": "A cup"}
        task = one.post("/v1/async/images/generations", json=order).raise_for_status().json()

        def ended() -> httpx.Response | None:
            answer = other.get(f"/v1/tasks/{task['id']}").raise_for_status()
            return answer if answer.json()["status"] == "completed" else None

        done = eventually(ended, 15, every=0.2)
        assert done.json()["credits_cost"] == 2
        assert png_size(fetch(done.json()["result"]["data"][0]["url"])) == (256, 256)
        assert one.get(f"/v1/tasks/{task['id']}").content == done.content
        listed = other.get("/gateway/tasks").raise_for_status().json()["data"]
        assert [found["id"] for found in listed] == [task["id"]]
        with pair.clients(pair.team_key()) as strangers:
            answers = [stranger.get(f"/v1/tasks/{task['id']}") for stranger in strangers]
        assert [answer.status_code for answer in answers] == [404, 404]


def test_team_key_issued_and_revoked_at_one_counts_at_the_other(pair: Pair) -> None:
    key = pair.team_key()
    with pair.clients(key) as (one, other):
        assert other.get("/gateway/account").status_code == 200  # never seen there before
        assert one.get("/gateway/account").status_code == 200
        pair.one.call("POST", f"/keys/{key.split('_')[1]}/revoke")
        revoked = time.monotonic()
        assert one.get("/gateway/account").status_code == 401
        eventually(lambda: other.get("/gateway/account").status_code == 401, REVOKED_WITHIN, every=0.1)
        print(f"revoked everywhere after {time.monotonic() - revoked:.1f} s")
        assert {client.get("/gateway/account").status_code for client in (one, other)} == {401}


def test_upstream_key_added_and_disabled_at_one_counts_at_the_other(pair: Pair) -> None:
    with pair.clients(pair.team_key()) as (one, other):
        within(POOL_WITHIN, other, 503)  # what earlier tests left
        with pair.upstream_key() as key:
            print(f"added: {within(POOL_WITHIN, other, 200):.1f} s")
            assert generate(one) == 200
            pair.one.call("POST", f"/upstream-keys/{key}/disable")
            assert generate(one) == 503
            print(f"disabled: {within(POOL_WITHIN, other, 503):.1f} s")
            pair.one.call("POST", f"/upstream-keys/{key}/enable")
            print(f"enabled: {within(POOL_WITHIN, other, 200):.1f} s")
