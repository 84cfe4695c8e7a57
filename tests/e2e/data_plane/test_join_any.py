"""`repeats.join = "any"`: identical calls without a key are one call, also when they start at the same instant."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import SYNC, Rig, ended, error_of, order, rig
from tests.e2e.harness import eventually

CALLERS = 20


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(module_database_url, redis_url, {"GATEWAY_REPEATS__JOIN": "any"}) as found:
        yield found


@pytest.fixture(scope="module")
def bases(here: Rig) -> Iterator[list[str]]:
    """The addresses of two processes."""
    with harness.beside(here.gateway.environment) as process, here.caller(here.key) as client:
        client.base_url = httpx.URL(process.base)
        eventually(lambda: client.post(SYNC, json=order(uuid.uuid4().hex)).is_success)
        yield [here.gateway.base, process.base]


def at_once(here: Rig, bases: list[str], text: str, headers: list[dict[str, str]]) -> list[httpx.Response]:
    """The answers of identical calls that start together, by turns at each process."""
    start = threading.Barrier(len(headers))

    def call(number: int) -> httpx.Response:
        with here.caller(here.key) as client:
            client.base_url = httpx.URL(bases[number % len(bases)])
            client.get("/healthz")  # its connection is there
            start.wait(20)
            return client.post(SYNC, json=order(text), headers=headers[number])

    with ThreadPoolExecutor(len(headers)) as threads:
        return list(threads.map(call, range(len(headers))))


def executions(here: Rig, text: str) -> int:
    return sum(text in (entry["body_text"] or "") for entry in here.sandbox.journal(2000))


def held(here: Rig, answers: list[httpx.Response]) -> list[httpx.Response]:
    """Those of the answers that a hold was placed for."""
    return [answer for answer in answers if here.hold(answer) is not None]


@pytest.mark.parametrize("round_", range(3))
def test_calls_that_start_at_the_same_instant_are_one(here: Rig, bases: list[str], round_: int) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:delay=1]"
    answers = at_once(here, bases, text, [{}] * CALLERS)
    assert Counter(answer.status_code for answer in answers) == {200: CALLERS}
    assert len({answer.content for answer in answers}) == 1
    assert executions(here, text) == 1
    paid = held(here, answers)
    assert len(paid) == 1
    assert "idempotent-replayed" not in paid[0].headers
    assert sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers) == CALLERS - 1
    hold = ended(here, paid[0], "settled")
    assert hold.settled == hold.quote
    for base in bases:  # no seat is kept
        with here.caller() as client:
            client.base_url = httpx.URL(base)
            client.headers["authorization"] = here.gateway.admin.headers["authorization"]
            assert "\ngateway_paid_calls_in_flight 0" in client.get("/metrics").text


def test_with_one_key_the_others_are_told_to_ask_again(here: Rig, bases: list[str]) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:delay=1]"
    answers = at_once(here, bases, text, [{"idempotency-key": uuid.uuid4().hex}] * 8)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}
    for answer in answers:
        if answer.status_code == 409:
            error_of(answer, 409, "idempotency_in_progress", "idempotency_in_progress")
    assert executions(here, text) == len(held(here, answers)) == 1


def test_who_joins_a_call_that_is_refused_hears_so_or_makes_its_own(here: Rig, bases: list[str]) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:status=400 shape=numeric delay=0.5]"
    answers = at_once(here, bases, text, [{}] * 8)
    assert {answer.status_code for answer in answers} <= {400, 503}
    assert 400 in {answer.status_code for answer in answers}
    for answer in held(here, answers):
        ended(here, answer, "released")


def test_slots_of_calls_that_joined_are_free_again(here: Rig, bases: list[str]) -> None:
    slug = here.gateway.team(f"Narrow {uuid.uuid4().hex[:8]}", unlimited=True, max_in_flight=20)["slug"]
    key = here.gateway.key(slug)
    text = f"Cup {uuid.uuid4().hex} [fault:delay=1]"
    start = threading.Barrier(CALLERS)

    def call(number: int) -> int:
        with here.caller(key) as client:
            client.base_url = httpx.URL(bases[number % 2])
            client.get("/healthz")
            start.wait(20)
            return client.post(SYNC, json=order(text)).status_code

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(CALLERS))) == {200}
    others = [f"Cup {uuid.uuid4().hex} [fault:delay=0.5]" for _ in range(20)]
    with ThreadPoolExecutor(20) as threads, here.caller(key) as client:
        found = list(threads.map(lambda other: client.post(SYNC, json=order(other)).status_code, others))
    assert Counter(found) == {200: 20}
