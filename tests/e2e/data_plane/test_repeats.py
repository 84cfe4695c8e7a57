"""A paid call that is repeated is executed and paid once: by its key, or as an SDK's own retry."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, EDITS, MODEL, SYNC, Rig, error_of, order, rig
from tests.e2e.harness import eventually

_numbers = itertools.count(1)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    settings = {
        "GATEWAY_UPSTREAM__SYNC_TIMEOUT": "3.5",
        "GATEWAY_UPSTREAM__SUBMIT_TIMEOUT": "3.5",
        "GATEWAY_DATABASE__LOCK_TIMEOUT": "1.9",
    }
    with rig(module_database_url, redis_url, settings) as found:
        yield found


@pytest.fixture(scope="module")
def other(here: Rig) -> Iterator[httpx.Client]:
    """A client of the same key at a second gateway process."""
    with harness.beside(here.gateway.environment) as process, here.caller(here.key) as client:
        client.base_url = httpx.URL(process.base)
        eventually(lambda: client.post(SYNC, json=order()).is_success)
        yield client


def prompt(marker: str = "") -> str:
    """One that no other test uses."""
    return f"Cup {next(_numbers)} {uuid.uuid4().hex} {marker}"


def executions(rig: Rig, text: str) -> int:
    """How often Pixapi was sent this prompt, as JSON or in a form."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return sum(
        text in (entry["body_text"] or "") or any(part["sha256"] == digest for part in entry["parts"])
        for entry in rig.sandbox.journal(2000)
    )


def keyed(key: str | None = None) -> dict[str, str]:
    return {"idempotency-key": key or uuid.uuid4().hex}


def retry(count: int = 1) -> dict[str, str]:
    return {"x-stainless-retry-count": str(count)}


def send(
    client: httpx.Client, text: str, headers: dict[str, str], path: str = SYNC, **fields: Any
) -> httpx.Response:
    return client.post(path, json=order(text, **fields), headers=headers)


def leave_after(rig: Rig, text: str, seconds: float, headers: dict[str, str] | None = None) -> None:
    """Sends a call and closes the connection before it is answered."""
    with rig.caller(rig.key) as client, contextlib.suppress(httpx.ReadTimeout):
        client.post(SYNC, json=order(text), headers=headers, timeout=seconds)
        raise AssertionError("answered before")


def holds(rig: Rig, answer: httpx.Response) -> int:
    return len(rig.rows("SELECT 1 FROM holds WHERE request_id = %s", answer.headers["x-request-id"]))


# Idempotency-Key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SYNC, ASYNC])
def test_the_same_key_and_body_get_the_same_answer(here: Rig, other: httpx.Client, path: str) -> None:
    text, headers = prompt(), keyed()
    first = send(here.client, text, headers, path)
    assert "idempotent-replayed" not in first.headers
    for client in (here.client, other, here.client):
        again = send(client, text, headers, path)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        assert holds(here, again) == 0
    assert executions(here, text) == 1


def test_while_it_runs_a_key_is_409(here: Rig, other: httpx.Client) -> None:
    text, headers = prompt("[fault:delay=1.5]"), keyed()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(send, here.client, text, headers)
        eventually(lambda: executions(here, text) == 1)
        for client in (here.client, other):
            refused = send(client, text, headers)
            error_of(refused, 409, "idempotency_in_progress", "idempotency_in_progress")
            assert refused.headers["x-should-retry"] == "true"
            assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status_code == 200
    assert send(other, text, headers).content == first.result().content
    assert executions(here, text) == 1


def test_of_many_at_once_one_is_executed(here: Rig, other: httpx.Client) -> None:
    text, headers = prompt("[fault:delay=0.3]"), keyed()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: send((here.client, other)[n % 2], text, headers), range(40)))
    assert set(Counter(answer.status_code for answer in answers)) <= {200, 409}
    assert len({answer.content for answer in answers if answer.is_success}) == 1
    assert executions(here, text) == 1


def test_another_body_path_or_model_is_422(here: Rig) -> None:
    text, headers = prompt(), keyed()
    assert send(here.client, text, headers).is_success
    for answer in (
        send(here.client, prompt(), headers),
        send(here.client, text, headers, ASYNC),
        send(here.client, text, headers, model="gpt-image-2"),
    ):
        error_of(answer, 422, "idempotency_mismatch", "idempotency_mismatch")
        assert holds(here, answer) == 0


def test_a_key_is_its_team_s(here: Rig) -> None:
    text, headers = prompt(), keyed()
    assert send(here.client, text, headers).is_success
    with here.caller(here.gateway.key(here.team)) as sibling:
        assert send(sibling, text, headers).headers["idempotent-replayed"] == "true"
    with here.caller(here.gateway.key(here.new_team())) as stranger:
        assert "idempotent-replayed" not in send(stranger, text, headers).headers
    assert executions(here, text) == 2


@pytest.mark.parametrize(
    "marker", ["status=400 shape=numeric", "status=500 shape=string", "status=404 shape=numeric"]
)
def test_a_definite_refusal_frees_the_key(here: Rig, marker: str) -> None:
    text, headers = prompt(), keyed()
    here.sandbox.arm(marker, path=SYNC, times=1)
    refused = send(here.client, text, headers)
    assert not refused.is_success
    again = send(here.client, text, headers)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (200, False)


def test_our_own_refusals_leave_the_key_free(here: Rig) -> None:
    text, headers = prompt(), keyed()
    assert send(here.client, text, headers, model="unheard-of").status_code == 403
    poor = here.gateway.team(f"Poor {next(_numbers)}", quota={"period": "month", "limit": 1})["slug"]
    with here.caller(here.gateway.key(poor)) as client:
        assert send(client, text, headers).status_code == 402
        here.gateway.call("PUT", f"/teams/{poor}/quotas/month", json={"limit": 100})
        assert send(client, text, headers).status_code == 200


@pytest.mark.parametrize(
    ("marker", "status"), [("reset_after_execute", 502), ("hang_after_execute", 504), ("half_body", 502)]
)
@pytest.mark.long
def test_an_unknown_outcome_is_replayed_until_an_admin_releases_it(
    here: Rig, marker: str, status: int
) -> None:
    text, headers = prompt(f"[fault:{marker}]"), keyed()
    first = send(here.client, text, headers)
    error_of(first, status, "upstream_outcome_unknown", "upstream_outcome_unknown")
    for _ in range(2):
        again = send(here.client, text, headers)
        error_of(again, status, "upstream_outcome_unknown", "upstream_outcome_unknown")
        assert (again.headers["idempotent-replayed"], again.headers["x-should-retry"]) == ("true", "false")
    assert executions(here, text) == 1
    hold = here.held(first)
    here.gateway.call(
        "POST", f"/holds/{hold.id}/resolve", json={"outcome": "release", "reason": "Pixapi says so"}
    )
    send(here.client, text, headers)
    assert executions(here, text) == 2


def test_an_answer_that_is_none_is_charged_once(here: Rig) -> None:
    text, headers = prompt("[fault:no_data]"), keyed()
    answers = [send(here.client, text, headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["error"]["type"] for answer in answers} == {"upstream_error"}
    assert executions(here, text) == 1


@pytest.mark.parametrize("megabytes", [1, 3])
def test_large_answers_are_kept_too(here: Rig, other: httpx.Client, megabytes: int) -> None:
    text, headers = prompt(f"[fault:big={megabytes}]"), keyed()
    first = send(here.client, text, headers)
    for client in (here.client, other):
        assert send(client, text, headers).content == first.content
    assert executions(here, text) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e9", "a\tb"])
def test_a_key_that_is_none_is_400(here: Rig, key: str) -> None:
    answer = here.client.post(SYNC, json=order(), headers=[(b"idempotency-key", key.encode("latin-1"))])
    error_of(answer, 400, "invalid_request_error", "invalid_idempotency_key")
    assert here.untouched(answer)


def test_two_keys_are_400(here: Rig) -> None:
    answer = here.client.post(
        SYNC, json=order(), headers=[("idempotency-key", "a"), ("idempotency-key", "a")]
    )
    error_of(answer, 400, "invalid_request_error", "invalid_idempotency_key")
    longest = send(here.client, prompt(), keyed("x" * 200 + uuid.uuid4().hex + "x" * 23))
    assert longest.status_code == 200


# Retries of SDKs ---------------------------------------------------------------------------------------------


def test_a_retry_joins_a_call_that_runs(here: Rig, other: httpx.Client) -> None:
    text = prompt("[fault:delay=1.5]")
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(send, here.client, text, {})
        eventually(lambda: executions(here, text) == 1)
        joined = [
            threads.submit(send, client, text, retry(count))
            for client, count in ((here.client, 1), (other, 2))
        ]
        answers = [one.result() for one in (first, *joined)]
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text[:300] for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    assert executions(here, text) == 1
    assert [holds(here, answer) for answer in answers] == [1, 0, 0]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "other process"])
def test_a_retry_gets_the_answer_its_client_did_not_wait_for(
    here: Rig, other: httpx.Client, elsewhere: bool
) -> None:
    text = prompt("[fault:delay=1]")
    leave_after(here, text, 0.4)
    time.sleep(1.2)
    again = send(other if elsewhere else here.client, text, retry())
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert executions(here, text) == 1


@pytest.mark.parametrize("marker", ["delay=1.2", "delay=1.2 big=1", "delay=1.2 big=3"])
@pytest.mark.parametrize("stays", [True, False], ids=["its client stays", "its client leaves"])
def test_a_retry_at_another_process_waits_for_the_answer(
    here: Rig, other: httpx.Client, marker: str, stays: bool
) -> None:
    text = prompt(f"[fault:{marker}]")
    with ThreadPoolExecutor(2) as threads:
        if stays:
            threads.submit(send, here.client, text, {})
        else:
            threads.submit(leave_after, here, text, 0.4)
        eventually(lambda: executions(here, text) == 1)
        time.sleep(0.5)
        joined = threads.submit(send, other, text, retry()).result()
    assert (joined.status_code, joined.headers.get("idempotent-replayed")) == (200, "true"), joined.text[:200]
    assert executions(here, text) == 1


def test_who_leaves_before_the_call_is_sent_pays_nothing(here: Rig) -> None:
    text = prompt()
    slug = here.gateway.team(f"Slow {next(_numbers)}", quota={"period": "month", "limit": 100})
    counter = "SELECT 1 FROM quota_periods c JOIN quotas q ON q.id = c.quota_id WHERE q.team_id = %s FOR UPDATE OF c"
    with here.caller(here.gateway.key(slug["slug"])) as client, here.database.transaction():
        here.rows(counter, slug["id"])
        with pytest.raises(httpx.ReadTimeout):
            client.post(SYNC, json=order(text), timeout=0.4)
    eventually(lambda: here.rows("SELECT 1 FROM holds WHERE team_id = %s AND state = 'released'", slug["id"]))
    assert executions(here, text) == 0


def test_a_retry_that_comes_while_the_call_is_being_placed_joins_it(here: Rig) -> None:
    text = prompt()
    team = here.gateway.team(f"Slow {next(_numbers)}", quota={"period": "month", "limit": 100})
    counter = "SELECT 1 FROM quota_periods c JOIN quotas q ON q.id = c.quota_id WHERE q.team_id = %s FOR UPDATE OF c"
    key = here.gateway.key(team["slug"])
    eventually(lambda: seats(here) == 0)  # calls of tests before this one may still run
    with here.caller(key) as client, here.caller(key) as again, ThreadPoolExecutor(2) as threads:
        with here.database.transaction():
            here.rows(counter, team["id"])
            calls = [threads.submit(send, client, text, {})]
            eventually(lambda: seats(here) == 1)
            calls.append(threads.submit(send, again, text, retry()))
            eventually(lambda: seats(here) == 2)
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text[:200] for answer in answers]
    assert answers[0].content == answers[1].content
    assert executions(here, text) == 1


def seats(rig: Rig) -> int:
    """Paid calls of the process that are being placed, or run."""
    text = rig.gateway.admin.get("/metrics").raise_for_status().text
    (line,) = [line for line in text.splitlines() if line.startswith("gateway_paid_calls_in_flight ")]
    return int(float(line.rsplit(" ", 1)[1]))


def test_a_retry_right_after_the_answer_gets_it_again(here: Rig, other: httpx.Client) -> None:
    text = prompt()
    first = send(here.client, text, {})
    assert send(here.client, text, retry(1)).content == first.content
    assert send(other, text, retry(2)).content == first.content
    assert executions(here, text) == 1


def test_a_call_that_was_answered_long_ago_is_not_joined(here: Rig) -> None:
    text = prompt()
    first = send(here.client, text, {})
    query = (
        "UPDATE idempotency_records SET delivered_at = now() - interval '11 s' WHERE hold_id = %s RETURNING 1"
    )
    hold = here.held(first).id
    eventually(
        lambda: here.rows(
            "SELECT 1 FROM idempotency_records WHERE delivered_at < now() AND hold_id = %s", hold
        )
    )
    here.rows(query, hold)
    assert "idempotent-replayed" not in send(here.client, text, retry()).headers
    assert executions(here, text) == 2


def test_count_zero_and_other_bodies_keys_and_routes_are_new_calls(here: Rig) -> None:
    text = prompt()
    send(here.client, text, {})
    assert "idempotent-replayed" not in send(here.client, text, retry(0)).headers
    assert "idempotent-replayed" not in send(here.client, text + "!", retry()).headers
    assert "idempotent-replayed" not in send(here.client, text, retry(), ASYNC).headers
    with here.caller(here.gateway.key(here.team)) as sibling:
        assert "idempotent-replayed" not in send(sibling, text, retry()).headers
    for odd in ("-1", "one", "1.0", "99999"):
        assert "idempotent-replayed" not in send(here.client, text, {"x-stainless-retry-count": odd}).headers


def test_identical_calls_get_a_repeat_each(here: Rig) -> None:
    text = prompt("[fault:delay=1]")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: leave_after(here, text, 0.4), range(2)))
    time.sleep(1.2)
    answers = [send(here.client, text, retry()) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {200}
    assert executions(here, text) == 2
    newest = "SELECT taken FROM idempotency_records ORDER BY created_at DESC LIMIT 2"
    assert [row["taken"] for row in here.rows(newest)] == [1, 1]
    assert "idempotent-replayed" not in send(here.client, text, retry()).headers
    assert executions(here, text) == 3


def test_a_form_is_known_whatever_its_boundary(here: Rig) -> None:
    text = prompt()

    def edit(headers: dict[str, str], picture: bytes = PNG) -> httpx.Response:
        files = {"image": ("cup.png", picture, "image/png")}
        return here.client.post(EDITS, data={"model": MODEL, "prompt": text}, files=files, headers=headers)

    first = edit({})
    assert first.status_code == 200, first.text
    again = edit(retry())
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert "idempotent-replayed" not in edit(retry(2), PNG + b"x").headers


def test_a_retry_of_a_refused_call_is_a_new_call(here: Rig) -> None:
    text = prompt()
    here.sandbox.arm("status=500 shape=string", path=SYNC, times=1)
    assert send(here.client, text, {}).status_code == 500
    assert send(here.client, text, retry()).status_code == 200


def test_a_retry_of_an_unknown_outcome_is_not_sent(here: Rig) -> None:
    text = prompt("[fault:reset_after_execute]")
    assert send(here.client, text, {}).status_code == 502
    again = send(here.client, text, retry())
    error_of(again, 502, "upstream_outcome_unknown", "upstream_outcome_unknown")
    assert again.headers["x-should-retry"] == "false"
    assert executions(here, text) == 1


@pytest.mark.parametrize("kind", ["generate", "edit"])
@pytest.mark.long
def test_the_real_sdk_that_gives_up_early_gets_the_one_answer(here: Rig, kind: str) -> None:
    text = prompt("[fault:delay=2.5]")
    with openai.OpenAI(
        base_url=f"{here.gateway.base}/v1", api_key=here.key, timeout=1.0, max_retries=5
    ) as sdk:
        if kind == "generate":
            answer = sdk.images.generate(model=MODEL, prompt=text)
        else:
            answer = sdk.images.edit(model=MODEL, prompt=text, image=("cup.png", PNG, "image/png"))
    assert answer.data
    found = here.rows(
        "SELECT h.state FROM holds h WHERE h.model = %s ORDER BY h.placed_at DESC LIMIT 1", MODEL
    )
    assert found[0]["state"] == "settled"
    assert executions(here, text) == 1


# A process that dies -------------------------------------------------------------------------------------------


def test_a_call_whose_process_was_killed_is_never_sent_again(here: Rig) -> None:
    text, joined, headers = prompt("[fault:delay=2]"), prompt("[fault:delay=2]"), keyed()
    with harness.beside(here.gateway.environment) as dying, here.caller(here.key) as client:
        client.base_url = httpx.URL(dying.base)
        eventually(lambda: client.post(SYNC, json=order()).is_success)
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(send, client, text, headers), threads.submit(send, client, joined, {})]
            eventually(lambda: executions(here, text) == executions(here, joined) == 1)
            dying.child.send_signal(signal.SIGKILL)
            dying.child.wait()
            assert all(isinstance(call.exception(), httpx.TransportError) for call in calls)
    error_of(send(here.client, text, headers), 409, "idempotency_in_progress", "idempotency_in_progress")
    # What time does to the hold of a process that is gone:
    here.rows(
        "UPDATE holds SET state = 'unknown', reason = 'process_ended' FROM idempotency_records r"
        " WHERE r.hold_id = id AND holds.state = 'held' AND r.created_at > now() - interval '1 minute' RETURNING id"
    )
    here.rows(
        "UPDATE holds SET unknown_at = now() - interval '1 minute' WHERE state = 'unknown' RETURNING id"
    )
    for answer in (send(here.client, text, headers), send(here.client, joined, retry())):
        error_of(answer, 502, "upstream_outcome_unknown", "upstream_outcome_unknown")
    assert executions(here, text) == executions(here, joined) == 1


def test_who_waits_for_a_call_may_leave(here: Rig) -> None:
    text = prompt("[fault:delay=1.5]")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(send, here.client, text, {})
        eventually(lambda: executions(here, text) == 1)
        with contextlib.suppress(httpx.ReadTimeout), here.caller(here.key) as client:
            client.post(SYNC, json=order(text), headers=retry(), timeout=0.3)
        assert first.result().status_code == 200
    assert executions(here, text) == 1
