"""Clients that leave: nothing is sent before the body is whole, and after that the call is carried to its end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import uuid4

import pytest

from tests.e2e.data_plane.forms import CONTENT_TYPE, ORDER, file, form
from tests.e2e.data_plane.rig import ASYNC, EDITS, MICRO, SYNC, Rig, ended, header, order
from tests.e2e.data_plane.wire import Wire, head
from tests.e2e.harness import eventually


def request(rig: Rig, path: str, body: bytes, content_type: str = "application/json") -> tuple[str, bytes]:
    """A paid call's request id and bytes."""
    ident = f"leaving-{uuid4().hex}"
    fields = ["Host: gateway", f"Authorization: Bearer {rig.key}", f"Content-Type: {content_type}"]
    start = head(f"POST {path} HTTP/1.1", *fields, f"Content-Length: {len(body)}", f"x-request-id: {ident}")
    return ident, start + body


def leave_after_dispatch(rig: Rig, path: str, prompt: str) -> str:
    """Sends a call, waits until Pixapi has it, and goes away; the request id."""
    ident, data = request(rig, path, json.dumps(order(prompt)).encode())
    with Wire(rig.gateway.process.port) as wire:
        wire.send(data)
        eventually(lambda: rig.sent(ident))
        assert rig.held(ident).state == "held"
    return ident


@pytest.mark.parametrize(
    ("prompt", "state", "settled", "executed"),
    [
        ("[fault:delay=0.4]", "settled", 2 * MICRO, 1),
        ("[fault:drip=0.4]", "settled", 2 * MICRO, 1),
        ("[fault:delay=0.4 status=400]", "released", None, 0),
        ("[fault:delay=0.4 reset_after_execute]", "unknown", None, 1),
        ("[fault:delay=0.4 empty_204]", "settled", 2 * MICRO, 1),
    ],
)
def test_a_call_outlives_its_client(
    shared: Rig, prompt: str, state: str, settled: int | None, executed: int
) -> None:
    ident = leave_after_dispatch(shared, SYNC, prompt)
    assert ended(shared, ident, state).settled == settled
    [entry] = shared.sent(ident)
    assert entry["executed"] is bool(executed)
    assert len(shared.attempts(ident)) == 1


def test_a_task_is_recorded_for_a_client_that_left(shared: Rig) -> None:
    ident = leave_after_dispatch(shared, ASYNC, "[fault:delay=0.4 stuck]")
    task = eventually(lambda: shared.held(ident).task_id)
    assert shared.held(ident).state == "held"
    assert len(shared.sent(ident)) == 1
    assert shared.client.get(f"/v1/tasks/{task}").status_code == 200
    shared.sandbox.end_task(task)


def test_a_client_that_stops_reading_changes_nothing(shared: Rig) -> None:
    body = json.dumps(order("[fault:big=20]", response_format="b64_json")).encode()
    ident, data = request(shared, SYNC, body)
    with Wire(shared.gateway.process.port) as wire:
        wire.send(data)
        assert ended(shared, ident, "settled").settled == 2 * MICRO
    assert len(shared.sent(ident)) == 1
    assert shared.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("left_out", [1, 20, 10_000])
def test_nothing_is_sent_before_the_body_is_whole(shared: Rig, left_out: int) -> None:
    calls = [
        request(shared, SYNC, json.dumps(order("x" * 20_000)).encode()),
        request(shared, ASYNC, json.dumps(order("x" * 20_000)).encode()),
        request(shared, EDITS, form([*ORDER, file(data=b"x" * 20_000)]), CONTENT_TYPE),
    ]
    for ident, data in calls:
        with Wire(shared.gateway.process.port) as wire:
            wire.send(data[:-left_out])
            # The gateway has read what there is: a second connection is served meanwhile.
            assert shared.client.get("/healthz").status_code == 200
            assert shared.untouched(ident)
        eventually(lambda ident=ident: f'"request_id":"{ident}"' in shared.gateway.process.text())
        assert shared.untouched(ident)
        [line] = [one for one in shared.gateway.process.text().splitlines() if ident in one]
        assert json.loads(line)["status"] == 499


def test_whenever_a_client_leaves_the_books_are_right(shared: Rig) -> None:
    random = Random(7)
    calls = [request(shared, SYNC, json.dumps(order("[fault:delay=0.01]")).encode()) for _ in range(60)]
    pauses = {ident: random.uniform(0, 0.05) for ident, _ in calls}

    def leave(call: tuple[str, bytes]) -> None:
        ident, data = call
        with Wire(shared.gateway.process.port) as wire:
            wire.send(data)
            time.sleep(pauses[ident])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(leave, calls))
    # A call that everything was sent of before its client left has a line in the log in the end.
    eventually(lambda: all(shared.gateway.process.text().count(ident) for ident, _ in calls))
    rows = "SELECT request_id, state FROM holds WHERE request_id = ANY(%s)"
    idents = [ident for ident, _ in calls]
    eventually(lambda: not any(row["state"] == "held" for row in shared.rows(rows, idents)))
    states = {row["request_id"]: row["state"] for row in shared.rows(rows, idents)}
    executed = [header(one, "x-request-id") for one in shared.sandbox.journal(300) if one["executed"]]
    for ident in idents:
        assert executed.count(ident) == (states.get(ident) == "settled")
        assert states.get(ident) in (None, "settled", "released")


def test_a_client_that_left_gave_its_place_back(shared: Rig) -> None:
    for _ in range(3):
        leave_after_dispatch(shared, SYNC, "[fault:delay=0.2]")
    token = {"authorization": f"Bearer {shared.gateway.environment['GATEWAY_ADMIN__BOOTSTRAP_TOKEN']}"}
    with shared.caller() as client:
        eventually(lambda: "gateway_paid_calls_in_flight 0.0" in client.get("/metrics", headers=token).text)
