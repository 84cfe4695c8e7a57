"""Polling: the owner's task, its last known state when Pixapi cannot say, and its end only once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.data_plane.forms import CONTENT_TYPE, ORDER, file, form
from tests.e2e.data_plane.rig import ASYNC, ASYNC_EDITS, MICRO, VIDEOS, Rig, ended, error_of, order, rig
from tests.e2e.harness import eventually

QUOTE = 2 * MICRO
EVERY = 0.06  # a little more than a reading of a running task serves everyone


@pytest.fixture
def here(impatient: Rig) -> Rig:
    return impatient


def poll(rig: Rig, task: str) -> httpx.Response:
    answer = rig.client.get(f"/v1/tasks/{task}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == task
    assert answer.headers["x-cache"] in ("hit", "miss", "coalesced", "stale")
    assert int(answer.headers["age"]) >= 0
    return answer


def done(rig: Rig, task: str) -> httpx.Response:
    """The first answer that shows the task's end."""

    def check() -> httpx.Response | None:
        answer = poll(rig, task)
        if answer.json()["status"] in ("completed", "failed"):
            assert "retry-after" not in answer.headers
            return answer
        assert int(answer.headers["retry-after"]) >= 1
        return None

    found: httpx.Response = eventually(check, every=EVERY)
    return found


def cached(rig: Rig, task: str, how: str) -> httpx.Response:
    """The first answer with this x-cache."""

    def check() -> httpx.Response | None:
        answer = poll(rig, task)
        return answer if answer.headers["x-cache"] == how else None

    found: httpx.Response = eventually(check, every=EVERY)
    return found


def test_a_task_is_recorded_when_its_id_arrives(here: Rig) -> None:
    for path, body in ((ASYNC, order()), (VIDEOS, order() | {"model": "veo"})):
        answer = here.client.post(path, json=body)
        [row] = here.rows("SELECT * FROM tasks WHERE id = %s", answer.json()["id"])
        assert row["hold_id"] == here.held(answer).id
        assert row["status"] == "submitted"
        assert json.loads(bytes(row["body"]))["status"] == "submitted"


@pytest.mark.parametrize(
    ("path", "body", "cost", "kind"),
    [
        (ASYNC, order(n=2), 4, "image"),
        (ASYNC, order(quality="high") | {"model": "gpt-image-2"}, 4, "image"),
        (VIDEOS, order(duration=1) | {"model": "kling"}, 2.24, "video"),
        (ASYNC_EDITS, None, 2, "image"),
    ],
)
def test_a_task_ends_at_its_real_cost(
    here: Rig, path: str, body: dict[str, Any] | None, cost: float, kind: str
) -> None:
    if body is None:
        content = form([*ORDER, file()])
        answer = here.client.post(path, content=content, headers={"content-type": CONTENT_TYPE})
    else:
        answer = here.client.post(path, json=body)
    task = answer.json()["id"]
    last = done(here, task).json()
    assert set(last) == {
        "id",
        "status",
        "credits_cost",
        "model",
        "progress",
        "result",
        "created",
        "completed",
    }
    assert (last["status"], last["credits_cost"], last["progress"]) == ("completed", cost, 100)
    assert last["result"]["type"] == kind
    assert all(set(item) == {"url"} for item in last["result"]["data"])
    hold = here.held(answer)
    assert (hold.state, hold.settled, hold.estimated, hold.flags) == (
        "settled",
        round(cost * MICRO),
        False,
        [],
    )


@pytest.mark.parametrize(
    ("marker", "state", "settled", "flags", "estimated"),
    [
        ("task_fail", "released", None, [], False),
        ("task_fail=generation_timeout", "released", None, [], False),
        ("fail_with_cost=1.5", "settled", 1_500_000, [], False),
        ("cost=0.5", "settled", 500_000, [], False),
        ("cost=0.1234565", "settled", 123_457, [], False),
        ("cost=0", "settled", 0, [], False),
        ('cost="1.5"', "settled", 1_500_000, [], False),
        ("cost=1e0", "settled", 1_000_000, [], False),
        ("cost=3", "settled", 3_000_000, ["overrun"], False),
        ("cost=null", "settled", QUOTE, ["odd_cost"], True),
        ("cost=missing", "settled", QUOTE, ["odd_cost"], True),
        ("cost=-1", "settled", QUOTE, ["odd_cost"], True),
        ("cost=NaN", "settled", QUOTE, ["odd_cost"], True),
        ("cost=1e400", "settled", QUOTE, ["odd_cost"], True),
        ("cost=1000000", "settled", QUOTE, ["odd_cost"], True),
        ('cost="free"', "settled", QUOTE, ["odd_cost"], True),
        ("cost=true", "settled", QUOTE, ["odd_cost"], True),
        ("task_fail cost=null", "released", None, [], False),
        ("no_url", "settled", QUOTE, [], False),
        ("fewer_images=1", "settled", QUOTE, [], False),
        ("extra_fields", "settled", QUOTE, [], False),
    ],
)
def test_the_end_of_a_task_ends_its_hold(
    here: Rig, marker: str, state: str, settled: int | None, flags: list[str], estimated: bool
) -> None:
    answer = here.client.post(ASYNC, json=order(f"[fault:{marker}]"))
    done(here, answer.json()["id"])
    hold = here.held(answer)
    assert (hold.state, hold.settled, hold.flags) == (state, settled, flags)
    assert hold.estimated is estimated


def test_an_ended_task_is_served_without_asking_pixapi(here: Rig) -> None:
    task = here.submit()
    last = done(here, task)
    reads = here.sandbox.reads(task)
    for _ in range(3):
        again = poll(here, task)
        assert (again.content, again.headers["x-cache"]) == (last.content, "hit")
    # Not from this process's memory either.
    eventually(lambda: poll(here, task).content == last.content, every=EVERY)
    assert here.sandbox.reads(task) == reads


def test_the_first_end_is_the_only_one(here: Rig) -> None:
    answer = here.client.post(ASYNC, json=order("[fault:duplicate_terminal]"))
    task = answer.json()["id"]
    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda _: done(here, task).json(), range(8)))
    assert all(end == ends[0] for end in ends)
    assert ends[0]["status"] == "completed"
    hold = here.held(answer)
    assert (hold.state, hold.settled) == ("settled", QUOTE)


@pytest.mark.parametrize(
    "marker",
    [
        "poll_404_first=3",
        "poll_status=500:3",
        "poll_status=503:3 shape=string",
        "poll_status=502:3 shape=html",
        "poll_status=404:3 shape=string",
        "poll_status=403:3",
        "poll_status=200:3 shape=html",
        "poll_status=204:3",
        "poll_status=307:3 shape=none",
        "poll_hang=1",
        "poll_status=400:3",
    ],
)
def test_a_failed_read_is_no_verdict(here: Rig, marker: str) -> None:
    answer = here.client.post(ASYNC, json=order(f"[fault:{marker}]"))
    task = answer.json()["id"]
    stale = cached(here, task, "stale")
    assert stale.json()["status"] == "submitted"
    assert stale.json().keys() <= {"id", "status", "model", "progress", "created", "created_at"}
    assert int(stale.headers["retry-after"]) >= 1
    assert done(here, task).json()["status"] == "completed"
    assert ended(here, answer, "settled").settled == QUOTE


def test_a_failed_read_keeps_the_newest_state(here: Rig) -> None:
    task = here.submit("[fault:stuck]")
    eventually(lambda: poll(here, task).json()["status"] == "processing", every=EVERY)
    before = cached(here, task, "miss").json()
    here.sandbox.arm("status=500", path=f"/v1/tasks/{task}", times=None)
    stale = cached(here, task, "stale").json()
    assert stale["status"] == "processing"
    assert stale["progress"] >= before["progress"]
    here.sandbox.disarm()
    cached(here, task, "miss")


@pytest.mark.parametrize("word", ["queued", "COMPLETED", "Failed", "succeeded", "cancelled", "error", "done"])
def test_an_unknown_status_is_still_running(here: Rig, word: str) -> None:
    answer = here.client.post(ASYNC, json=order(f"[fault:stuck odd_status={word}]"))
    task = answer.json()["id"]
    running = eventually(
        lambda: seen if (seen := poll(here, task)).json()["status"] == word else None, every=EVERY
    )
    assert int(running.headers["retry-after"]) >= 1
    assert here.held(answer).state == "held"
    here.sandbox.end_task(task)
    assert done(here, task).json()["status"] == "completed"
    assert here.held(answer).state == "settled"


def test_many_who_poll_share_one_read(database_url: str, redis_url: str) -> None:
    # A pair of its own: the reads of a key are few, and other tests' tasks would take their part of them.
    with rig(database_url, redis_url) as here, ThreadPoolExecutor(10) as threads:
        task = here.submit("[fault:stuck]")
        here.sandbox.arm("delay=0.4", path=f"/v1/tasks/{task}", times=1)
        answers = list(threads.map(lambda _: poll(here, task), range(10)))
        reads = here.sandbox.reads(task)
    assert len({answer.content for answer in answers}) == 1
    how = [answer.headers["x-cache"] for answer in answers]
    assert how.count("miss") == 1
    assert set(how) <= {"miss", "coalesced", "hit"}
    assert reads in (1, 2)  # the reconciler's own comes two seconds after the submit


def test_somebody_else_s_task_is_no_task(here: Rig) -> None:
    task = here.submit("[fault:stuck]")
    poll(here, task)
    reads = here.sandbox.reads(task)
    ids = [task, "task_unknown", "x", "a" * 128, "a" * 129, "a.b", "task_~1"]
    with here.caller(here.gateway.key(here.new_team())) as stranger:
        answers = [stranger.get(f"/v1/tasks/{one}") for one in ids]
    errors = [error_of(answer, 404, "not_found_error", "task_not_found") for answer in answers]
    assert len({error["message"] for error in errors}) == 1
    heads = [
        {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        for answer in answers
    ]
    assert all(head.keys() == heads[0].keys() for head in heads)
    assert here.sandbox.reads(task) == reads
    assert not any(here.sent(answer) for answer in answers)


def test_any_key_of_the_team_may_poll(here: Rig) -> None:
    task = here.submit("[fault:stuck]")
    narrow = here.gateway.key(here.team, allowed_models=["gpt-image-2"])
    with here.caller(narrow) as other:
        assert other.get(f"/v1/tasks/{task}").status_code == 200


def test_a_task_of_the_same_account_that_was_not_made_here_is_unknown(here: Rig) -> None:
    direct = here.sandbox.control.post(
        ASYNC, json=order("[fault:stuck]"), headers={"authorization": f"Bearer {here.secret}"}
    )
    answer = here.client.get(f"/v1/tasks/{direct.json()['id']}")
    error_of(answer, 404, "not_found_error", "task_not_found")
    assert not here.sent(answer)


def test_own_tasks_are_listed(here: Rig) -> None:
    with here.caller(here.gateway.key(here.new_team())) as client:
        ids = [client.post(ASYNC, json=order("[fault:stuck]")).json()["id"] for _ in range(3)]
        first = client.get("/gateway/tasks?limit=2").json()
        rest = client.get(f"/gateway/tasks?limit=2&after={first['next']}").json()
    assert [task["id"] for task in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert not any("upstream_key_id" in task for task in first["data"])


def test_everything_wrong_in_a_list_s_query_is_named_at_once(here: Rig) -> None:
    for query, names in (
        ("limit=0&bogus=1&after=xx", ["'bogus'", "limit", "after"]),
        ("after=xx", ["after"]),
        ("limit=000000001999", ["limit"]),
        ("limit=1&limit=2", ["limit"]),
    ):
        answer = here.client.get(f"/gateway/tasks?{query}")
        error_of(answer, 400, "invalid_request_error", "invalid_fields")
        problems = answer.json()["error"]["message"].split("; ")
        assert [problem.partition(":")[0] for problem in problems] == names


def test_a_submit_answer_that_is_none_makes_no_task(here: Rig) -> None:
    before = here.rows("SELECT count(*) AS count FROM tasks")
    for marker in ("no_data", "bad_json", "empty_204", "html"):
        answer = here.client.post(ASYNC, json=order(f"[fault:{marker}]"))
        error_of(answer, 502, "upstream_error")
        assert here.held(answer).flags == ["odd_answer"]
    assert here.rows("SELECT count(*) AS count FROM tasks") == before
