"""Several upstream keys: what concerns a key goes to another one, once, and what concerns the request does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.data_plane.pool import Pool
from tests.e2e.data_plane.rig import (
    ASYNC,
    SYNC,
    Rig,
    error_of,
    new_account,
    order,
)
from tests.e2e.harness import eventually


@pytest.fixture
def here(impatient: Rig) -> Rig:
    return impatient


# What Pixapi says of one key, and how the gateway names that attempt.
ABOUT_THE_KEY = {
    "status=401": "key_refused",
    "status=401 shape=string": "key_refused",
    "status=401 shape=none": "key_refused",
    "status=402": "key_exhausted",
    "status=402 shape=string": "key_exhausted",
    "status=429": "throttled",
    "status=429 shape=string retry_after=2": "throttled",
    "echo_key=401": "key_refused",
}


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("marker", ABOUT_THE_KEY)
def test_another_key_serves_when_one_is_refused(here: Rig, pool: Pool, path: str, marker: str) -> None:
    bad = pool.add(weight=1000)  # an idle pool draws by weight, so it nearly always starts here
    good = pool.add()
    here.sandbox.arm_key(bad.secret, marker)

    def refused_first() -> httpx.Response | None:
        answer = here.client.post(path, json=order())
        assert answer.status_code == 200, answer.text
        return answer if len(here.attempts(answer)) == 2 else None

    answer = eventually(refused_first)
    assert [(one["label"], one["outcome"]) for one in here.attempts(answer)] == [
        (bad.label, ABOUT_THE_KEY[marker]),
        (good.label, "answered"),
    ]
    assert here.held(answer).state == ("settled" if path == SYNC else "held")
    # The refused key rests: nobody asks it again.
    assert pool.counts(bad) == [1]
    for _ in range(3):
        assert here.client.post(path, json=order()).status_code == 200
    assert pool.counts(bad) == [1]
    assert pool.counts(bad, what="executions") == [0]


def test_an_account_without_credits_is_left_for_another(here: Rig, pool: Pool) -> None:
    poor, rich = new_account(), new_account()
    here.sandbox.account(poor, credits=1)
    keys = [pool.add(poor, weight=1000), pool.add(rich)]
    answers = [here.client.post(SYNC, json=order()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert pool.counts(*keys, what="executions") == [0, 3]
    assert pool.counts(keys[0]) in ([0], [1])


def test_a_403_that_concerns_the_request_does_not_fail_over(here: Rig, pool: Pool) -> None:
    first, second = pool.add(), pool.add()
    for key in (first, second):
        here.sandbox.arm_key(key.secret, "status=403 shape=string")
    answer = here.client.post(SYNC, json=order())
    error_of(answer, 403, "permission_error", "prompt_rejected")
    assert len(here.attempts(answer)) == 1
    assert sum(pool.counts(first, second)) == 1


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize(
    ("marker", "status", "kind", "reason"),
    [
        ("status=401", 503, "upstream_unavailable", "upstream_key_refused"),
        ("status=402 shape=string", 503, "upstream_unavailable", "upstream_out_of_credits"),
        ("status=429 retry_after=7", 429, "rate_limit_error", "upstream_throttled"),
    ],
)
def test_when_every_key_is_refused_nothing_is_charged(
    here: Rig, pool: Pool, path: str, marker: str, status: int, kind: str, reason: str
) -> None:
    keys = [pool.add(), pool.add()]
    for key in keys:
        here.sandbox.arm_key(key.secret, marker)
    answer = here.client.post(path, json=order())
    error_of(answer, status, kind, reason)
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert here.held(answer).state == "released"
    assert len(here.attempts(answer)) == 2
    assert pool.counts(*keys) == [1, 1]
    # From now on nothing is sent at all.
    again = here.client.post(path, json=order())
    error_of(again, status, kind)
    assert again.headers["x-should-retry"] == "true"
    assert here.held(again).state == "released"
    assert not here.sent(again)
    if status == 429:
        assert 5 <= int(again.headers["retry-after"]) <= 7
        assert 5000 < int(again.headers["retry-after-ms"]) <= 7000
        assert int(answer.headers["retry-after"]) == 7
    # An admin's word ends the rest.
    here.sandbox.disarm()
    pool.turn(keys[0], "enable")
    assert here.client.post(path, json=order()).status_code == 200


def test_while_another_key_cools_down_the_client_is_told_to_wait_for_it(here: Rig, pool: Pool) -> None:
    pool.add()
    here.sandbox.arm("status=429 retry_after=20", times=1)
    error_of(here.client.post(SYNC, json=order()), 429, "rate_limit_error")
    here.sandbox.arm_key(pool.add().secret, "status=401")
    answer = here.client.post(SYNC, json=order())
    error_of(answer, 429, "rate_limit_error", "upstream_throttled")
    assert int(answer.headers["retry-after"]) <= 20
    assert [one["outcome"] for one in here.attempts(answer)] == ["key_refused"]


def test_no_more_than_one_other_key_is_tried(here: Rig, pool: Pool) -> None:
    keys = [pool.add() for _ in range(4)]
    for key in keys:
        here.sandbox.arm_key(key.secret, "status=401")
    answer = here.client.post(SYNC, json=order())
    error_of(answer, 503, "upstream_unavailable")
    assert sum(pool.counts(*keys)) == 2


def test_a_key_rests_as_long_as_pixapi_asks(here: Rig, pool: Pool) -> None:
    key = pool.add()
    here.sandbox.arm("status=429 retry_after=2", times=1)
    first = here.client.post(SYNC, json=order())
    error_of(first, 429, "rate_limit_error", "upstream_throttled")
    assert first.headers["retry-after"] == "2"
    eventually(lambda: here.client.post(SYNC, json=order()).status_code == 200, 4, 0.1)
    assert pool.counts(key, what="executions") == [1]


def test_a_call_sent_before_the_rest_does_not_end_it(here: Rig, pool: Pool) -> None:
    key = pool.add()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(here.client.post, SYNC, json=order("[fault:delay=0.8]"))
        eventually(lambda: pool.counts(key) == [1])
        here.sandbox.arm("status=429 retry_after=30", times=1)
        error_of(here.client.post(SYNC, json=order()), 429, "rate_limit_error")
        assert slow.result().status_code == 200
    answer = here.client.post(SYNC, json=order())
    error_of(answer, 429, "rate_limit_error", "upstream_throttled")
    assert not here.sent(answer)


def test_a_new_key_takes_over_at_once(here: Rig, pool: Pool) -> None:
    pool.add()
    here.client.get("/v1/models")
    here.sandbox.arm("status=429 retry_after=30", times=1)
    error_of(here.client.post(SYNC, json=order()), 429, "rate_limit_error")
    new = pool.add()
    assert here.client.post(SYNC, json=order()).status_code == 200
    assert pool.counts(new) == [1]


def test_paid_rests_do_not_stop_polls_and_the_other_way_round(here: Rig, pool: Pool) -> None:
    key = pool.add()
    task = here.submit("[fault:stuck]")
    here.sandbox.arm("status=429 retry_after=30", times=1)
    error_of(here.client.post(SYNC, json=order()), 429, "rate_limit_error")
    eventually(lambda: here.client.get(f"/v1/tasks/{task}").headers["x-cache"] == "miss", every=0.06)

    pool.turn(key, "enable")
    here.sandbox.arm("status=429 retry_after=30", path="/v1/tasks/*", times=1)
    poll = eventually(lambda: _stale(here.client.get(f"/v1/tasks/{task}")), every=0.06)
    assert poll.json()["id"] == task
    assert here.client.post(SYNC, json=order()).status_code == 200
    reads = here.sandbox.reads(task)
    eventually(lambda: _stale(here.client.get(f"/v1/tasks/{task}")), every=0.06)
    assert here.sandbox.reads(task) == reads


def _stale(answer: httpx.Response) -> httpx.Response | None:
    assert answer.status_code == 200, answer.text
    return answer if answer.headers["x-cache"] == "stale" else None


@pytest.mark.parametrize("marker", ["reset", "status=500", "status=502", "html", "status=400", "cut"])
def test_what_may_have_been_executed_or_concerns_the_request_stays_with_one_key(
    here: Rig, pool: Pool, marker: str
) -> None:
    keys = [pool.add(), pool.add()]
    answer = here.client.post(SYNC, json=order(f"[fault:{marker}]"))
    assert answer.status_code >= 400
    assert sum(pool.counts(*keys)) == 1
    assert len(here.attempts(answer)) == 1
