"""A client whose network dies, or that stops reading, has not got its answer: its repeat gets it and pays nothing."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import MICRO, SYNC, HoldRow, Rig, ended, order, rig
from tests.e2e.data_plane.wire import head
from tests.e2e.harness import eventually

DELIVERED = "SELECT delivered_at FROM idempotency_records WHERE hold_id = %s"
PASSES = (
    "UPDATE idempotency_records SET delivered_at = delivered_at - interval '11 s'"
    " WHERE hold_id = %s AND delivered_at IS NOT NULL RETURNING 1"
)


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(module_database_url, redis_url) as found:
        yield found


def stalled(rig: Rig, text: str) -> tuple[socket.socket, str]:
    """A client with little room that has sent a call and never reads; with the call's request id."""
    ident = f"stalled-{uuid.uuid4().hex}"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", rig.gateway.process.port))
    connection.sendall(call_of(rig, text, ident))
    return connection, ident


def call_of(rig: Rig, text: str, ident: str) -> bytes:
    """A whole request."""
    body = order_of(text)
    fields = [
        "Host: gateway",
        f"Authorization: Bearer {rig.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"x-request-id: {ident}",
    ]
    return head(f"POST {SYNC} HTTP/1.1", *fields) + body


def order_of(text: str) -> bytes:
    """The bytes of a call, the same each time: by them a repeat is known."""
    return json.dumps(order(text)).encode()


def send(client: httpx.Client, text: str, **headers: str) -> httpx.Response:
    return client.post(SYNC, content=order_of(text), headers={"content-type": "application/json", **headers})


def repeat(client: httpx.Client, text: str) -> httpx.Response:
    return send(client, text, **{"x-stainless-retry-count": "1"})


def executions(rig: Rig, text: str) -> int:
    return sum(text in (entry["body_text"] or "") for entry in rig.sandbox.journal(1000))


def is_whole(answer: httpx.Response, megabytes: float) -> bool:
    picture = answer.json()["data"][0]["b64_json"]
    return answer.status_code == 200 and len(picture) >= megabytes * 1_000_000


# The first fits our buffers, which took it whole at once; the second does not even fit those of the kernel.
@pytest.mark.parametrize("megabytes", [0.9, 9])
def test_a_client_that_stops_reading_repeats_at_no_cost(here: Rig, megabytes: float) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:big={megabytes}]"
    connection, ident = stalled(here, text)
    with closing(connection):
        hold = ended(here, ident, "settled")
        time_passes(here, hold)
        answer = repeat(here.client, text)
        assert is_whole(answer, megabytes)
        assert answer.headers["idempotent-replayed"] == "true"
    assert executions(here, text) == 1
    assert hold.settled == 2 * MICRO
    assert here.hold(answer) is None


def time_passes(rig: Rig, hold: HoldRow) -> None:
    """More than ten seconds, if the gateway takes the answer for delivered, which it says within one."""
    until = time.monotonic() + 1
    while time.monotonic() < until and not rig.rows(PASSES, hold.id):
        time.sleep(0.05)


@pytest.mark.parametrize("marker", ["reset_after_execute", "no_data"])
def test_an_error_that_never_arrived_is_repeated_at_no_cost(here: Rig, marker: str) -> None:
    """Its client's network died while an earlier answer was on its way: the error lies behind it."""
    text, ident = f"Cup {uuid.uuid4().hex} [fault:{marker}]", f"stalled-{uuid.uuid4().hex}"
    connection, first = stalled(here, f"Cup {uuid.uuid4().hex} [fault:big=0.9]")
    with closing(connection):
        ended(here, first, "settled")
        connection.sendall(call_of(here, text, ident))
        hold = ended(here, ident, "settled" if marker == "no_data" else "unknown")
        time_passes(here, hold)
        answer = repeat(here.client, text)
        assert (answer.status_code, answer.headers["idempotent-replayed"]) == (502, "true")
    assert executions(here, text) == 1


def test_who_takes_nothing_is_ended_and_its_answer_kept(database_url: str, redis_url: str) -> None:
    settings = {"GATEWAY_SERVER__BODY_IDLE_TIMEOUT": "1", "GATEWAY_SERVER__SPOOL_MAX_BYTES": "20000000"}
    texts = [f"Cup {uuid.uuid4().hex} [fault:big=9]" for _ in range(3)]
    with rig(database_url, redis_url, settings) as narrow:
        for text in texts:  # one after another they fit, if each goes
            connection, ident = stalled(narrow, text)
            with closing(connection):
                ended(narrow, ident, "settled")
                eventually(lambda: spooled(narrow) == 0)
        assert is_whole(repeat(narrow.client, texts[0]), 9)
        assert executions(narrow, texts[0]) == 1


def spooled(rig: Rig) -> float:
    """Bytes of bodies on disk."""
    text = rig.gateway.admin.get("/metrics").raise_for_status().text
    (line,) = [line for line in text.splitlines() if line.startswith("gateway_spool_bytes ")]
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.long
def test_who_takes_nothing_does_not_keep_a_process_that_ends(database_url: str, redis_url: str) -> None:
    with rig(
        database_url,
        redis_url,
        {"GATEWAY_SERVER__DRAIN_SECONDS": "60", "GATEWAY_SERVER__BODY_IDLE_TIMEOUT": "2"},
    ) as ending:
        connection, ident = stalled(ending, f"Cup {uuid.uuid4().hex} [fault:big=9]")
        with closing(connection):
            ended(ending, ident, "settled")
            assert ending.gateway.process.stop() == 0  # fails when it takes long


@pytest.mark.parametrize("megabytes", [0.9, 3])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_who_has_read_everything_calls_anew(here: Rig, megabytes: float, connection: str) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:big={megabytes}]"
    first = send(here.client, text, connection=connection)
    assert is_whole(first, megabytes)
    hold = here.held(first)
    eventually(lambda: here.rows(DELIVERED, hold.id)[0]["delivered_at"])
    assert here.rows(PASSES, hold.id)
    again = repeat(here.client, text)
    assert is_whole(again, megabytes)
    assert "idempotent-replayed" not in again.headers
    assert executions(here, text) == 2
    assert here.held(again).id != hold.id


@pytest.mark.long
def test_who_reads_slowly_to_the_end_has_its_answer(here: Rig) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:big=0.9]"
    connection, ident = stalled(here, text)
    with closing(connection):
        connection.settimeout(10)
        left = 900_000
        while left > 0:  # for longer than an answer may lie still
            left -= len(connection.recv(8192))
            time.sleep(0.06)
        hold = ended(here, ident, "settled")
        eventually(lambda: here.rows(DELIVERED, hold.id)[0]["delivered_at"])


# As above: whether it is still being relayed, or was handed over whole.
@pytest.mark.parametrize("megabytes", [0.9, 9])
@pytest.mark.long
def test_while_it_stalls_another_process_has_the_answer(here: Rig, megabytes: float) -> None:
    text = f"Cup {uuid.uuid4().hex} [fault:big={megabytes}]"
    connection, ident = stalled(here, text)
    with (
        closing(connection),
        harness.beside(here.gateway.environment) as process,
        here.caller(here.key) as client,
    ):
        ended(here, ident, "settled")
        client.base_url = httpx.URL(process.base)
        answer = repeat(client, text)
        assert is_whole(answer, megabytes)
        assert answer.headers["idempotent-replayed"] == "true"
    assert executions(here, text) == 1
