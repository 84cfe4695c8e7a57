"""What clients see of the caches: validators, ages, fresh answers asked for, and waiting for a task to change."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, SYNC, Rig, error_of, order, rig
from tests.e2e.harness import eventually


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    """A gateway with the real intervals; tasks change only when told to."""
    with rig(module_database_url, redis_url, None, "--speed", "0.01", "--sync-seconds", "0.001") as found:
        yield found


def poll(rig: Rig, task: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return rig.client.get(f"/v1/tasks/{task}", headers=named)


def ended(rig: Rig, task: str) -> httpx.Response:
    rig.sandbox.end_task(task)

    def check() -> httpx.Response | None:
        answer = poll(rig, task)
        return answer if answer.json()["status"] == "completed" else None

    found: httpx.Response = eventually(check, every=0.2)
    return found


def waiting(threads: ThreadPoolExecutor, rig: Rig, task: str, prefer: str) -> Future[httpx.Response]:
    """A poll that waits, sent now."""
    return threads.submit(poll, rig, task, Prefer=prefer)


def list_reads(rig: Rig) -> int:
    return sum(entry["path"] == "/v1/models" for entry in rig.sandbox.journal(1000))


def test_an_unfinished_task_serves_two_seconds(here: Rig) -> None:
    task = here.submit()
    first = poll(here, task)
    assert (first.headers["x-cache"], first.headers["age"], first.headers["retry-after"]) == (
        "miss",
        "0",
        "2",
    )
    again = poll(here, task, if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert (again.headers["x-cache"], again.headers["etag"]) == ("hit", first.headers["etag"])
    assert again.headers["retry-after"] == "2"
    assert not {"content-length", "content-type"} & again.headers.keys()
    assert poll(here, task, if_none_match='"other"').status_code == 200
    assert here.sandbox.reads(task) == 1


def test_no_cache_reads_no_more_often_than_the_interval_allows(here: Rig) -> None:
    task = here.submit()
    for _ in range(8):
        assert poll(here, task, cache_control="no-cache").status_code == 200
    assert here.sandbox.reads(task) == 1


def test_a_finished_task_never_changes_but_may_be_read_anew(here: Rig) -> None:
    answer = here.client.post(ASYNC, json=order())
    task = answer.json()["id"]
    end = ended(here, task)
    assert "retry-after" not in end.headers
    hold, reads = here.held(answer), here.sandbox.reads(task)
    for _ in range(3):
        same = poll(here, task)
        assert (same.headers["x-cache"], same.content) == ("hit", end.content)
    assert poll(here, task, if_none_match=end.headers["etag"]).status_code == 304
    assert here.sandbox.reads(task) == reads
    time.sleep(2)  # the interval counts for it as well
    anew = [poll(here, task, cache_control="no-cache") for _ in range(4)]
    assert anew[0].headers["x-cache"] == "miss"
    assert {one.json()["status"] for one in anew} == {"completed"}
    assert here.sandbox.reads(task) == reads + 1
    assert here.held(answer) == hold


def test_a_finished_task_outlives_its_entry_and_ages(here: Rig) -> None:
    task = here.submit()
    end = ended(here, task)
    reads = here.sandbox.reads(task)
    time.sleep(1.1)
    assert int(poll(here, task).headers["age"]) >= 1
    here.rows("UPDATE tasks SET seen_at = now() - interval '1 hour' WHERE id = %s RETURNING id", task)
    with here.caller(here.key) as client:
        client.base_url = httpx.URL(here.gateway.base)
        assert client.get(f"/v1/tasks/{task}").content == end.content
    assert here.sandbox.reads(task) == reads


def test_a_stranger_gets_the_same_404_cached_or_not(here: Rig) -> None:
    task = here.submit()
    with here.caller(here.gateway.key(here.new_team())) as stranger:
        before = stranger.get(f"/v1/tasks/{task}")
        etag = poll(here, task).headers["etag"]
        after = [
            stranger.get(f"/v1/tasks/{task}", headers=headers)
            for headers in (
                {},
                {"if-none-match": etag},
                {"if-none-match": "*"},
                {"cache-control": "no-cache"},
                {"prefer": "wait=5"},
            )
        ]
    for answer in (before, *after):
        error_of(answer, 404, "not_found_error", "task_not_found")
        assert not {"x-cache", "etag", "age"} & answer.headers.keys()


def test_waiting_ends_when_the_task_does(here: Rig) -> None:
    task = here.submit()
    poll(here, task)
    with ThreadPoolExecutor(3) as threads:
        asked = [waiting(threads, here, task, "wait=20") for _ in range(3)]
        time.sleep(0.5)
        assert not any(one.done() for one in asked)
        here.sandbox.end_task(task)
        began = time.monotonic()
        answers = [one.result() for one in asked]
    assert time.monotonic() - began < 6
    assert {answer.json()["status"] for answer in answers} == {"completed"}
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=20"}


def test_waiting_ends_when_the_time_does(here: Rig) -> None:
    task = here.submit()
    state = poll(here, task).json()["status"]
    began, reads = time.monotonic(), here.sandbox.reads(task)
    answer = poll(here, task, Prefer="respond-async, wait=3")
    assert 2.9 < time.monotonic() - began < 4.5
    assert (answer.json()["status"], answer.headers["preference-applied"]) == (state, "wait=3")
    assert "retry-after" in answer.headers
    assert here.sandbox.reads(task) - reads <= 3


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=soon", "await=5", "wait=1.5", "wait=0"])
def test_a_wait_that_is_none_is_ignored(here: Rig, prefer: str) -> None:
    task = here.submit()
    began = time.monotonic()
    answer = poll(here, task, Prefer=prefer)
    assert time.monotonic() - began < 1
    assert (answer.status_code, answer.headers.get("preference-applied")) == (
        200,
        "wait=0" if prefer == "wait=0" else None,
    )


def test_waiting_for_an_ended_task_is_no_waiting(here: Rig) -> None:
    task = here.submit()
    ended(here, task)
    began = time.monotonic()
    assert poll(here, task, Prefer="wait=60").json()["status"] == "completed"
    assert time.monotonic() - began < 1


def test_a_key_revoked_while_it_waits_is_told_nothing(here: Rig) -> None:
    task = here.submit()
    key = here.gateway.key(here.team)
    with ThreadPoolExecutor(1) as threads, here.caller(key) as client:
        poll(here, task)
        asked = threads.submit(client.get, f"/v1/tasks/{task}", headers={"prefer": "wait=2"})
        time.sleep(0.3)
        here.gateway.call("POST", f"/keys/{key.split('_')[1]}/revoke")
        assert asked.result().status_code == 401


def test_a_team_suspended_while_it_waits_is_told_nothing(here: Rig) -> None:
    task = here.submit()
    with ThreadPoolExecutor(1) as threads:
        poll(here, task)
        asked = waiting(threads, here, task, "wait=2")
        time.sleep(0.3)
        here.gateway.call("POST", f"/teams/{here.team}/suspend")
        try:
            error_of(asked.result(), 403, "permission_error", "team_suspended")
        finally:
            here.gateway.call("POST", f"/teams/{here.team}/resume")
    eventually(lambda: here.client.get("/gateway/account").status_code == 200)


@pytest.mark.long
def test_who_waits_while_the_process_drains_is_answered_at_its_end(here: Rig) -> None:
    with harness.beside(here.gateway.environment) as process, here.caller(here.key) as client:
        client.base_url = httpx.URL(process.base)
        task = here.submit()
        with ThreadPoolExecutor(2) as threads:
            client.get(f"/v1/tasks/{task}")
            paid = threads.submit(client.post, SYNC, json=order("[fault:delay=3]"))
            asked = threads.submit(client.get, f"/v1/tasks/{task}", headers={"prefer": "wait=60"})
            time.sleep(0.7)
            process.child.send_signal(signal.SIGTERM)
            time.sleep(1.2)
            assert not asked.done()
            assert paid.result().status_code == 200
            assert asked.result().json()["status"] in ("submitted", "processing")
        assert process.child.wait(10) == 0


def test_who_leaves_while_waiting_waits_no_longer(here: Rig) -> None:
    task = here.submit()
    poll(here, task)
    host, port = here.gateway.base.removeprefix("http://").split(":")

    def clients() -> float:
        text = here.gateway.admin.get("/metrics").text
        return next(
            float(line.split()[1]) for line in text.splitlines() if line.startswith("gateway_waiting_clients")
        )

    eventually(lambda: clients() == 0, 15)
    with socket.create_connection((host, int(port))) as raw:
        head = [
            f"GET /v1/tasks/{task} HTTP/1.1",
            "host: x",
            f"authorization: Bearer {here.key}",
            "prefer: wait=60",
        ]
        raw.sendall("\r\n".join([*head, "", ""]).encode())
        eventually(lambda: clients() == 1)
    eventually(lambda: clients() == 0)


def test_models_have_validators_too(here: Rig) -> None:
    first = here.client.get("/v1/models")
    etag = first.headers["etag"]
    assert here.client.get("/v1/models", headers={"if-none-match": etag}).status_code == 304
    one = here.client.get("/v1/models/veo")
    assert one.headers["etag"] not in ("", etag)
    reads = list_reads(here)
    time.sleep(2)
    anew = [here.client.get("/v1/models", headers={"cache-control": "no-cache"}) for _ in range(3)]
    assert anew[0].headers["x-cache"] == "miss"
    assert {one.content for one in anew} == {first.content}
    assert list_reads(here) - reads == 1
    narrow = here.gateway.key(here.team, allowed_models=["veo"])
    with here.caller(narrow) as other:
        listed = other.get("/v1/models", headers={"if-none-match": etag})
        assert (listed.status_code, [model["id"] for model in listed.json()["data"]]) == (200, ["veo"])
