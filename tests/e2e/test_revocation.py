"""A revoked key stops in every process: within a second by way of Redis, and without it when its principal ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway

UPSTREAM = "http://127.0.0.1:1"  # nothing here calls it
WITH_REDIS = 1.0  # seconds, by contract
WITHOUT_REDIS = 3.0  # what `cache.principal` is set to where Redis is away
OBSERVING = 0.5  # what the last poll of a test may take on a busy machine

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """`one` is asked by its admin API; `other` is its equal."""

    one: Gateway
    other: harness.Process

    def team(self) -> str:
        return str(self.one.team(f"Team {next(_numbers)}")["slug"])

    @contextlib.contextmanager
    def clients(self, key: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
        """A client of each process with the same team key."""
        with self.one.client(key) as one, self.one.client(key) as other:
            other.base_url = httpx.URL(self.other.base)
            yield one, other

    def command(self, *arguments: str) -> float:
        """Runs a command with the settings of the processes; seconds on the clock at its end. It says nothing on
        standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env={**os.environ, **self.one.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        ended = time.monotonic()
        assert (done.returncode, done.stderr) == (0, b"")
        return ended


@contextlib.contextmanager
def pair_of(database_url: str, redis_url: str, environment: Mapping[str, str]) -> Iterator[Pair]:
    with (
        harness.gateway(database_url, redis_url, UPSTREAM, environment) as one,
        harness.beside(one.environment) as other,
    ):
        yield Pair(one, other)


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    """Principals live a minute, so what stops sooner was told to."""
    with pair_of(module_database_url, redis_url, {"GATEWAY_CACHE__PRINCIPAL": "60"}) as pair:
        yield pair


@pytest.fixture(scope="module")
def cut_off(module_database_url: str) -> Iterator[Pair]:
    """Two processes whose Redis is not there."""
    with socket.socket() as nobody:
        nobody.bind(
            ("127.0.0.1", 0)
        )  # not listening: connections are refused, and nobody else takes the port
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        with pair_of(module_database_url, url, {"GATEWAY_CACHE__PRINCIPAL": f"{WITHOUT_REDIS:g}"}) as pair:
            yield pair


def account(client: httpx.Client) -> httpx.Response:
    return client.get("/gateway/account")


def until(client: httpx.Client, status: int, seconds: float) -> float:
    """When a call had this status for the first time; the key is used all the while, and the status stays."""
    deadline = time.monotonic() + seconds + OBSERVING
    while account(client).status_code != status:
        assert time.monotonic() < deadline, f"not {status} within {seconds} s"
        time.sleep(0.02)
    found = time.monotonic()
    assert {account(client).status_code for _ in range(5)} == {status}
    return found


def public_id(key: str) -> str:
    return key.split("_")[1]


def lags(process: harness.Process, token: str) -> dict[str, float]:
    """The samples of the revocation lag of one process, by what is behind the metric's name."""
    headers = {"authorization": f"Bearer {token}"}
    text = httpx.get(f"{process.base}/metrics", headers=headers, trust_env=False).raise_for_status().text
    name = "gateway_revocation_lag_seconds"
    lines = (line.removeprefix(name).rpartition(" ") for line in text.splitlines() if line.startswith(name))
    return {what: float(value) for what, _, value in lines}


def test_a_key_revoked_at_one_is_dead_at_the_other_within_a_second(pair: Pair) -> None:
    key = pair.one.key(pair.team())
    with pair.clients(key) as (one, other):
        assert [account(client).status_code for client in (one, other)] == [200, 200]
        pair.one.call("POST", f"/keys/{public_id(key)}/revoke")
        revoked = time.monotonic()
        assert account(one).status_code == 401
        took = until(other, 401, WITH_REDIS) - revoked
        print(f"dead everywhere after {took * 1000:.0f} ms")
        assert took <= WITH_REDIS


def test_a_key_revoked_by_a_command_is_dead_at_both_within_a_second(pair: Pair) -> None:
    key = pair.one.key(pair.team())
    with pair.clients(key) as clients:
        assert [account(client).status_code for client in clients] == [200, 200]
        revoked = pair.command("keys", "revoke", public_id(key), "--yes")
        for client in clients:
            assert until(client, 401, WITH_REDIS) - revoked <= WITH_REDIS


def seen(client: httpx.Client) -> tuple[int, object, object]:
    """Status, allowed models, and the requests a minute of key and team, as the process of this client knows them."""
    answer = account(client)
    found = answer.json()
    limits = found.get("limits", {})
    minute = [limits.get(scope, {}).get("requests_per_minute") for scope in ("key", "team")]
    return answer.status_code, found.get("allowed_models"), minute


def test_every_change_of_a_key_or_its_team_is_heard_of(pair: Pair) -> None:
    team = pair.team()
    key = pair.one.key(team)
    this_key, this_team = f"/keys/{public_id(key)}", f"/teams/{team}"
    refused = (None, [None, None])
    changes: list[tuple[str, str, dict[str, object], tuple[int, object, object]]] = [
        ("PATCH", this_key, {"allowed_models": ["veo", "wan"]}, (200, ["veo", "wan"], [None, None])),
        ("PATCH", this_team, {"allowed_models": ["wan"]}, (200, ["wan"], [None, None])),
        ("PATCH", this_key, {"requests_per_minute": 50_000}, (200, ["wan"], [50_000, None])),
        ("PATCH", this_team, {"requests_per_minute": 60_000}, (200, ["wan"], [50_000, 60_000])),
        ("PATCH", this_key, {"allowed_addresses": ["192.0.2.1"]}, (403, *refused)),
        ("PATCH", this_key, {"allowed_addresses": None}, (200, ["wan"], [50_000, 60_000])),
        ("POST", f"{this_team}/suspend", {}, (403, *refused)),
        ("POST", f"{this_team}/resume", {}, (200, ["wan"], [50_000, 60_000])),
        ("POST", f"{this_key}/rotate", {"overlap_seconds": 0}, (401, *refused)),
    ]
    with pair.clients(key) as (_, other):
        assert seen(other) == (200, None, [None, None])
        for method, path, body, expected in changes:
            assert seen(other) != expected
            pair.one.call(method, path, json=body)
            harness.eventually(lambda expected=expected: seen(other) == expected, WITH_REDIS)


@pytest.mark.long
def test_a_team_suspended_by_a_command_is_stopped_at_both(pair: Pair) -> None:
    team = pair.team()
    with pair.clients(pair.one.key(team)) as clients:
        assert [account(client).status_code for client in clients] == [200, 200]
        suspended = pair.command("teams", "suspend", team, "--yes")
        for client in clients:
            assert until(client, 403, WITH_REDIS) - suspended <= WITH_REDIS


def test_the_lag_is_a_metric_of_every_process_that_hears(pair: Pair) -> None:
    token = pair.one.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]
    processes = (pair.one.process, pair.other)
    before = [lags(process, token)["_count"] for process in processes]
    key = pair.one.key(pair.team())
    pair.one.call("POST", f"/keys/{public_id(key)}/revoke")
    for process, count in zip(processes, before, strict=True):
        harness.eventually(
            lambda process=process, count=count: lags(process, token)["_count"] == count + 1, 1
        )
        found = lags(process, token)
        assert 0 <= found["_sum"] < found["_count"] * WITH_REDIS
        assert found['_bucket{le="1.0"}'] == found["_count"]


def test_without_redis_a_key_ends_with_its_principal_however_often_it_is_used(cut_off: Pair) -> None:
    key = cut_off.one.key(cut_off.team())
    with cut_off.clients(key) as (one, other):
        asked = time.monotonic()
        assert account(other).status_code == 200
        answered = time.monotonic()
        assert account(one).status_code == 200
        cut_off.one.call("POST", f"/keys/{public_id(key)}/revoke")
        assert account(one).status_code == 401  # the process that was told needs nobody to tell it
        assert account(other).status_code == 200
        dead = until(other, 401, WITHOUT_REDIS)
        print(f"dead {dead - asked:.2f} s after it was looked up")
        assert dead - asked >= WITHOUT_REDIS
        assert dead - answered <= WITHOUT_REDIS + OBSERVING


@pytest.mark.long
def test_without_redis_a_command_does_its_work_and_the_bound_holds(cut_off: Pair) -> None:
    key = cut_off.one.key(cut_off.team())
    with cut_off.clients(key) as clients:
        assert [account(client).status_code for client in clients] == [200, 200]
        revoked = cut_off.command("keys", "revoke", public_id(key), "--yes")
        for client in clients:
            assert until(client, 401, WITHOUT_REDIS) - revoked <= WITHOUT_REDIS + OBSERVING
