"""Which upstream keys are used: caps, weights, keys that are turned off, and the account a task belongs to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.data_plane.pool import Pool
from tests.e2e.data_plane.rig import (
    ASYNC,
    SYNC,
    Rig,
    digest_of,
    error_of,
    new_account,
    order,
)
from tests.e2e.harness import eventually


@pytest.fixture
def here(impatient: Rig) -> Rig:
    return impatient


def test_a_key_takes_no_more_calls_than_its_cap(here: Rig, pool: Pool) -> None:
    capped, free = pool.add(max_in_flight=1, weight=1000), pool.add(max_in_flight=2)
    with ThreadPoolExecutor(8) as threads:
        slow = [threads.submit(here.client.post, SYNC, json=order("[fault:delay=1.5]")) for _ in range(3)]
        eventually(lambda: sum(pool.counts(capped, free)) == 3)
        assert pool.counts(capped, free) == [1, 2]
        answer = here.client.post(SYNC, json=order())
        error_of(answer, 503, "upstream_unavailable", "upstream_keys_full")
        assert answer.headers["x-should-retry"] == "true"
        assert not here.sent(answer)
        assert here.held(answer).state == "released"
        assert [one.result().status_code for one in slow] == [200, 200, 200]
    assert here.client.post(SYNC, json=order()).status_code == 200


def test_calls_are_spread_by_weight(here: Rig, pool: Pool) -> None:
    light, heavy = pool.add(weight=1), pool.add(weight=3)
    with ThreadPoolExecutor(8) as threads:
        slow = [threads.submit(here.client.post, SYNC, json=order("[fault:delay=1.5]")) for _ in range(8)]
        assert [one.result().status_code for one in slow] == [200] * 8
    assert pool.counts(light, heavy) == [2, 6]


@pytest.mark.parametrize("verb", ["drain", "disable"])
def test_a_key_that_is_turned_off_gets_no_new_calls(here: Rig, pool: Pool, verb: str) -> None:
    off, on = pool.add(weight=1000), pool.add()
    pool.turn(off, verb)
    for path in (SYNC, ASYNC):
        assert here.client.post(path, json=order()).status_code == 200
    assert pool.counts(off, on) == [0, 2]
    pool.turn(on, verb)
    answer = here.client.post(SYNC, json=order())
    error_of(answer, 503, "upstream_unavailable", "no_upstream_key")
    assert answer.headers["x-should-retry"] == "true"
    hold = here.hold(answer)
    assert hold is None or hold.state == "released"
    assert not here.sent(answer)
    pool.turn(off, "enable")
    assert here.client.post(SYNC, json=order()).status_code == 200
    assert pool.counts(off, on) == [1, 2]


def test_a_removed_key_is_gone_and_an_empty_pool_says_so(here: Rig, pool: Pool) -> None:
    only = pool.add()
    assert here.client.post(SYNC, json=order()).status_code == 200
    pool.remove(only)
    for answer in (here.client.post(SYNC, json=order()), here.client.get("/v1/models")):
        error_of(answer, 503, "upstream_unavailable", "no_upstream_key")
        assert not here.sent(answer)


@pytest.mark.parametrize("what", ["kept", "draining", "disabled", "removed"])
def test_a_task_stays_with_its_account(here: Rig, pool: Pool, what: str) -> None:
    account = new_account()
    own = pool.add(account)
    task = here.submit("[fault:stuck]")
    sibling, stranger = pool.add(account), pool.add()
    if what == "removed":
        pool.remove(own)
    elif what != "kept":
        pool.turn(own, {"draining": "drain", "disabled": "disable"}[what])
    for _ in range(3):
        eventually(lambda: here.client.get(f"/v1/tasks/{task}").headers["x-cache"] == "miss", every=0.06)
    journal = here.sandbox.journal()
    readers = {entry["key_sha256"] for entry in journal if entry["path"] == f"/v1/tasks/{task}"}
    assert readers == {digest_of((own if what in ("kept", "draining") else sibling).secret)}
    assert pool.counts(stranger, what="reads") == [0]


def test_a_task_nobody_can_read_keeps_its_last_state_and_its_hold(here: Rig, pool: Pool) -> None:
    only = pool.add()
    answer = here.client.post(ASYNC, json=order("[fault:stuck]"))
    task = answer.json()["id"]
    pool.add()
    pool.turn(only, "disable")
    poll = here.client.get(f"/v1/tasks/{task}")
    assert (poll.status_code, poll.headers["x-cache"]) == (200, "stale")
    assert poll.json()["status"] == "submitted"
    assert here.held(answer).state == "held"
    assert here.gateway.admin.delete(f"/admin/api/upstream-keys/{only.id}").status_code == 409
    pool.turn(only, "enable")
    eventually(lambda: here.client.get(f"/v1/tasks/{task}").headers["x-cache"] == "miss", every=0.06)
