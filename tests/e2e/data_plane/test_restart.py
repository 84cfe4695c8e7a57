"""A process that ends in the middle: what was answered is kept, what was under way is neither lost nor repeated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, MICRO, SYNC, VIDEOS, Rig, caller, error_of, order
from tests.e2e.harness import eventually


def test_a_killed_process_leaves_nothing_behind_that_was_answered(shared: Rig) -> None:
    ident = "killed-while-under-way"
    with harness.beside(shared.gateway.environment) as doomed, caller(doomed.base, shared.key) as client:
        clip = order("[fault:duration=0.5]") | {"model": "kling", "duration": 1}
        with ThreadPoolExecutor(1) as threads:
            lost = threads.submit(post, client, ident)
            eventually(lambda: shared.sent(ident))
            answered = client.post(SYNC, json=order())
            tasks = [client.post(ASYNC, json=order("[fault:duration=0.5]")), client.post(VIDEOS, json=clip)]
            doomed.child.kill()
            doomed.child.wait()
            assert lost.result() is None
    assert answered.status_code == 200
    assert shared.held(answered).state == "settled"
    for answer, cost in zip(tasks, (2, 2.24), strict=True):
        assert answer.status_code == 200
        assert completed(shared, answer.json()["id"])["credits_cost"] == cost
        hold = shared.held(answer)
        assert (hold.state, hold.settled, len(shared.sent(answer))) == ("settled", round(cost * MICRO), 1)
    # The reconciler of later days makes it unknown; nobody has sent it again or given its credits back.
    assert shared.held(ident).state in ("held", "unknown")
    assert len(shared.sent(ident)) == 1


def test_a_terminated_process_defers_what_it_cannot_finish(shared: Rig) -> None:
    settings = shared.gateway.environment | {"GATEWAY_SERVER__DRAIN_SECONDS": "1"}
    ident = "terminated-while-under-way"
    with harness.beside(settings) as ending, caller(ending.base, shared.key) as client:
        with ThreadPoolExecutor(1) as threads:
            lost = threads.submit(post, client, ident)
            eventually(lambda: shared.sent(ident))
            assert ending.stop() == 0
            answer = lost.result()
    assert answer is not None
    error_of(answer, 502, "upstream_outcome_unknown", "upstream_outcome_unknown")
    assert answer.headers["x-should-retry"] == "false"
    assert shared.held(ident).state == "unknown"
    assert len(shared.sent(ident)) == 1


def post(client: httpx.Client, ident: str) -> httpx.Response | None:
    """The answer to a call that Pixapi never answers; None when the connection ended without one."""
    try:
        return client.post(SYNC, json=order("[fault:hang]"), headers={"x-request-id": ident})
    except (httpx.ReadError, httpx.RemoteProtocolError):
        return None


def completed(rig: Rig, task: str) -> dict[str, object]:
    """The task's last state, read through the process that is still there."""

    def check() -> dict[str, object] | None:
        poll = rig.client.get(f"/v1/tasks/{task}")
        assert poll.status_code == 200, poll.text
        state: dict[str, object] = poll.json()
        return state if state["status"] == "completed" else None

    found: dict[str, object] = eventually(check, every=0.2)
    return found
