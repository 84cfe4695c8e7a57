"""A process or a connection that ends in the middle: what was answered is kept, what was under way is neither lost
nor repeated, and what was never sent costs nothing."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

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
    # Nobody has sent it again or given its credits back.
    assert shared.held(ident).state in ("held", "unknown")
    assert len(shared.sent(ident)) == 1


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port that refuses connections, until somebody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.settimeout(10)
        yield taken


def test_what_is_not_sent_is_released_and_what_is_cut_off_is_unknown(
    shared: Rig, port: socket.socket
) -> None:
    settings = {
        "GATEWAY_UPSTREAM__BASE_URL": f"http://127.0.0.1:{port.getsockname()[1]}",
        "GATEWAY_SERVER__DRAIN_SECONDS": "1",
    }
    with (
        harness.beside(shared.gateway.environment | settings) as ending,
        caller(ending.base, shared.key) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        for path in (SYNC, ASYNC):
            refused_by_the_port(shared, client.post(path, json=order()))
        port.listen()
        ident = "terminated-while-under-way"
        lost = threads.submit(post, client, ident)
        with unanswered(port) as head:
            assert ident.encode() in head
            assert ending.stop() == 0
            answer = lost.result()
    assert answer is not None
    error_of(answer, 502, "upstream_outcome_unknown", "upstream_outcome_unknown")
    assert answer.headers["x-should-retry"] == "false"
    assert shared.held(ident).state == "unknown"


def test_a_second_signal_gives_no_client_a_reason_to_repeat(shared: Rig, port: socket.socket) -> None:
    port.listen()
    settings = {
        "GATEWAY_UPSTREAM__BASE_URL": f"http://127.0.0.1:{port.getsockname()[1]}",
        "GATEWAY_SERVER__DRAIN_SECONDS": "60",
    }
    ident = "ended-at-once"
    with (
        harness.beside(shared.gateway.environment | settings) as ending,
        caller(ending.base, shared.key) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        lost = threads.submit(post, client, ident)
        with unanswered(port):
            ending.child.send_signal(signal.SIGTERM)
            harness.eventually(lambda: httpx.get(f"{ending.base}/readyz", trust_env=False).status_code == 503)
            assert ending.stop() == 1  # cut short
            answer = lost.result()
    assert answer is not None
    error_of(answer, 502, "upstream_outcome_unknown", "upstream_outcome_unknown")
    assert answer.headers["x-should-retry"] == "false"
    assert shared.held(ident).state == "unknown"


def refused_by_the_port(rig: Rig, answer: httpx.Response) -> None:
    """Nothing was sent in two tries, and nothing is held any more."""
    error_of(answer, 503, "upstream_unavailable", "upstream_unreachable")
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after"]) >= 1
    assert rig.held(answer).state == "released"
    assert [one["outcome"] for one in rig.attempts(answer)] == ["not_sent"] * 2


@contextlib.contextmanager
def unanswered(port: socket.socket) -> Iterator[bytes]:
    """What of the first paid call arrives at once; its connection stays open, without an answer, in the block."""
    while True:
        with port.accept()[0] as connection:
            connection.settimeout(10)
            data = connection.recv(65536)
            if data.startswith(b"POST "):  # not the gateway's own look at the model list
                yield data
                return


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
