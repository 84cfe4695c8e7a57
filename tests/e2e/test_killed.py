"""kill -9 at each moment of a paid call: the ledger adds up, every hold is accounted for, nothing is sent twice."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, SYNC, Rig, caller, order, rig
from tests.e2e.harness import Process, eventually


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(module_database_url, redis_url) as made:
        yield made


def post(client: httpx.Client, path: str, prompt: str, ident: str) -> httpx.Response | None:
    """The answer; None when the connection ended without one."""
    try:
        return client.post(path, json=order(prompt), headers={"x-request-id": ident})
    except httpx.TransportError:
        return None


def executed(here: Rig, ident: str) -> bool:
    return any(entry["executed"] for entry in here.sandbox.sent(ident))


def arrived(here: Rig, ident: str) -> bool:
    return bool(here.sandbox.sent(ident))


@pytest.mark.parametrize(
    ("path", "prompt", "moment"),
    [
        (SYNC, "[fault:hang]", arrived),
        (ASYNC, "[fault:hang]", arrived),
        (SYNC, "[fault:hang_after_execute]", executed),
        (ASYNC, "[fault:hang_after_execute]", executed),
    ],
)
def test_killed_after_the_call_was_sent(
    here: Rig, path: str, prompt: str, moment: Callable[[Rig, str], bool]
) -> None:
    ident = f"killed-{path.rsplit('/', 3)[-3]}-{prompt[7:-1]}"
    with doomed(here) as process, caller(process.base, here.key) as client, ThreadPoolExecutor(1) as threads:
        lost = threads.submit(post, client, path, prompt, ident)
        eventually(lambda: moment(here, ident))
        kill(process)
        assert lost.result() is None
    hold = here.held(ident)
    assert hold.state in ("held", "unknown")  # sent: nobody gives its credits back
    assert len(here.sandbox.sent(ident)) == 1
    adds_up(here)


def test_killed_while_the_body_arrives(here: Rig) -> None:
    ident = "killed-in-the-body"
    with doomed(here) as process, socket.create_connection(("127.0.0.1", process.port)) as wire:
        head = (
            f"POST {SYNC} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {here.key}\r\nx-request-id: {ident}\r\n"
            "content-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
        wire.sendall(head.encode())
        eventually(lambda: httpx.get(f"{process.base}/healthz", trust_env=False).status_code == 200)
        kill(process)
    assert here.hold(ident) is None
    assert here.sandbox.sent(ident) == []
    adds_up(here)


@pytest.mark.long
def test_killed_right_after_the_answers(here: Rig) -> None:
    with doomed(here) as process, caller(process.base, here.key) as client:
        settled = [post(client, SYNC, "x", f"answered-{number}") for number in range(5)]
        task = post(client, ASYNC, "x", "submitted")
        kill(process)
    assert [answer.status_code for answer in settled if answer is not None] == [200] * 5
    assert {here.held(f"answered-{number}").state for number in range(5)} == {"settled"}
    assert task is not None
    assert task.status_code == 200
    eventually(lambda: here.held("submitted").state == "settled", 30)  # by the process that is left
    adds_up(here)


def test_killed_under_load(here: Rig) -> None:
    """Whatever twenty calls are doing at that moment."""
    idents = [f"load-{number}" for number in range(20)]
    with doomed(here) as process, caller(process.base, here.key) as client, ThreadPoolExecutor(20) as threads:
        calls = [threads.submit(post, client, SYNC, "[fault:delay=0.2]", ident) for ident in idents]
        eventually(lambda: sum(arrived(here, ident) for ident in idents) >= 5)
        kill(process)
        answers = [call.result() for call in calls]
    for ident, answer in zip(idents, answers, strict=True):
        hold, sends = here.hold(ident), len(here.sandbox.sent(ident))
        assert sends <= 1
        assert hold is not None or sends == 0  # no send without a hold
        if answer is not None and answer.status_code == 200:
            assert hold is not None
            assert hold.state == "settled"
    adds_up(here)


def doomed(here: Rig) -> AbstractContextManager[Process]:
    return harness.beside(here.gateway.environment)


def kill(process: Process) -> None:
    process.child.kill()
    process.child.wait()


def adds_up(here: Rig) -> None:
    proof = here.gateway.call("GET", "/ledger/verify")
    assert proof["differences"] == []
    assert proof["ok"] is True
