"""The connection: bodies, keep-alive, pipelining and refusals, over real sockets."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from gateway.server import lingering
from gateway.server.head import MAX_FIELDS, MAX_HEAD, MAX_TARGET
from tests.unit.server.raw_http import Served, served, until

BODY = b'{"model": "m", "prompt": "p\xc3\xb6"}'
JAVA_HEAD = (
    b"POST /v1/images/generations?a=1 HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: " + str(len(BODY)).encode() + b"\r\n"
    b"Host: 127.0.0.1\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n\r\n"
)
GET = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as running:
        yield running


def post(path: str, body: bytes, extra: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


def chunked(path: str, body: bytes, size: int, trailers: bytes = b"") -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return (
        head
        + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


# Bodies -----------------------------------------------------------------------------------------------------


def test_java_head_and_body_cut_at_every_byte(server: Served) -> None:
    data = JAVA_HEAD + BODY
    with server.connect() as wire:
        for cut in range(len(data) + 1):
            wire.send(data[:cut])
            if 0 < cut < len(data):
                time.sleep(
                    0.0003
                )  # another segment for the server; in one it would be just another whole request
            wire.send(data[cut:])
            seen = wire.read().json
            assert (seen["body"], seen["query"]) == (BODY.decode("latin-1"), "a=1"), cut
            assert {name for name, _ in seen["headers"]} == {"content-length", "host", "user-agent"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_java_request_in_many_pieces(server: Served, size: int) -> None:
    data = JAVA_HEAD + BODY
    with server.connect() as wire:
        for _ in range(3):
            wire.send(*(data[start : start + size] for start in range(0, len(data), size)))
            assert wire.read().json["body"] == BODY.decode("latin-1")


def test_upgrade_with_a_chunked_body(server: Served) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked"
    data = chunked("/x", BODY, 5).replace(b"Transfer-Encoding: chunked", upgrade)
    with server.connect() as wire:
        for cut in range(len(data)):
            wire.send(data[:cut], data[cut:])
            assert wire.read().json["body"] == BODY.decode("latin-1"), cut


def test_trailers_do_not_become_headers(server: Served) -> None:
    data = chunked("/trailers", BODY, 9, b"Authorization: Bearer other\r\nX-Evil: 1\r\n")
    with server.connect() as wire:
        for cut in range(0, len(data), 3):
            wire.send(data[:cut], data[cut:])
            assert [name for name, _ in wire.read().json["headers"]] == ["host", "transfer-encoding"]
    assert [scope for scope in server.app.scopes if scope["path"] == "/trailers"]
    for scope in server.app.scopes:
        assert b"x-evil" not in dict(scope["headers"])


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 3_000_000])
def test_big_bodies_arrive_whole(server: Served, size: int) -> None:
    body = hashlib.shake_128(b"seed").digest(size)
    for data in (post("/x", body), chunked("/x", body, 70_000), chunked("/x", body, 16 * 1024)):
        seen = server.ask(data).json
        assert (seen["length"], seen["body"]) == (size, hashlib.sha256(body).hexdigest())


def test_a_body_in_tiny_chunks_takes_little_time(server: Served) -> None:
    """Thousands of chunks come in one read, before the application can take any of them."""
    body = hashlib.shake_128(b"seed").digest(100_000)
    began = time.process_time()
    seen = server.ask(chunked("/x", body, 1)).json
    assert (seen["length"], seen["body"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert time.process_time() - began < 3


def test_a_client_that_does_not_read_pauses_only_itself(server: Served) -> None:
    with server.connect() as slow:
        slow.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.ask(GET).status == 200
        assert len(slow.read().body) == 4_000_000


def test_expect_100_continue(server: Served) -> None:
    with server.connect() as wire:
        wire.send(post("/x", BODY, b"Expect: 100-continue\r\n").removesuffix(BODY))
        assert wire.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        wire.send(BODY)
        assert wire.reader.readline() == b"\r\n"
        assert wire.read().json["body"] == BODY.decode("latin-1")


def test_an_early_answer_needs_no_100_and_closes(server: Served) -> None:
    with server.connect() as wire:
        wire.send(post("/early", b"x" * 50, b"Expect: 100-continue\r\n")[:-50])
        answer = wire.read()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert wire.rest() == b""


def test_an_early_answer_reaches_a_client_that_goes_on_sending(server: Served) -> None:
    body = b"x" * 20_000_000
    for _ in range(5):
        with server.connect() as wire:
            wire.send(post("/early", body)[:-1000])  # all this before reading a byte
            answer = wire.read()
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert wire.rest() == b""


def test_an_answer_after_the_body_keeps_the_connection(server: Served) -> None:
    with server.connect() as wire:
        for data in (post("/x", BODY), chunked("/x", BODY, 4), GET, post("/x", b"")):
            wire.send(data)
            assert "connection" not in wire.read().headers


# One connection, many requests -------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(server: Served) -> None:
    stream = (
        post("/1", b"one")
        + post("/2", b"two")
        + GET
        + chunked("/4", b"four", 3)
        + JAVA_HEAD
        + BODY
        + b"\r\n"
        + post("/6", b"six", b"Connection: close\r\n")
    )
    for cuts in ([], [1], [len(stream) // 2], range(0, len(stream), 7), range(len(stream))):
        edges = [0, *cuts, len(stream)]
        with server.connect() as wire:
            wire.send(*(stream[start:end] for start, end in pairwise(edges)))
            answers = [wire.read().json for _ in range(6)]
            assert wire.rest() == b""
        assert [seen["path"] for seen in answers][:4] == ["/1", "/2", "/next", "/4"]
        assert [seen["body"] for seen in answers] == ["one", "two", "", "four", BODY.decode("latin-1"), "six"]


def test_who_sends_ahead_waits_for_answers(server: Served) -> None:
    """What is read ahead of the answers stays bounded, however much a client sends."""

    def held(connection: Any) -> int:
        return len(connection._held)

    one = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 8000 + b"\r\n\r\n"
    with server.connect() as wire:
        sender = threading.Thread(target=wire.send, args=(one * 600,))
        sender.start()
        read_ahead = 0
        for _ in range(600):
            read_ahead = max([read_ahead, *map(held, server.server.server_state.connections)])
            assert wire.read().status == 200
        sender.join()
    assert read_ahead < 1024 * 1024


def test_nothing_is_served_after_connection_close(server: Served) -> None:
    for last in (
        post("/last", b"x", b"Connection: close\r\n"),
        GET.replace(b"Host", b"Connection: close\r\nHost"),
    ):
        with server.connect() as wire:
            wire.send(last + post("/never", b""))
            assert wire.read().headers["connection"] == "close"
            assert wire.rest() == b""
    assert "/never" not in [scope["path"] for scope in server.app.scopes]


def test_only_one_request_of_a_connection_runs(server: Served) -> None:
    server.app.released.clear()
    with server.connect() as wire:
        before = len(server.app.scopes)
        wire.send(post("/wait", b"a") + post("/wait", b"b") + GET)
        until(lambda: len(server.app.scopes) > before)
        assert server.ask(GET).status == 200
        assert len(server.app.scopes) == before + 2  # the first of the three, and the one just asked
        server.app.released.set()
        assert [wire.read().status for _ in range(3)] == [200, 200, 200]


def test_a_refusal_waits_for_the_answers_before_it(server: Served) -> None:
    server.app.released.clear()
    with server.connect() as wire:
        before = len(server.app.scopes)
        wire.send(post("/wait", b"paid") + b"GET / HTTP/9.9\r\n\r\n")
        until(lambda: len(server.app.scopes) > before)
        server.app.released.set()
        assert wire.read().body == b"paid"
        assert wire.read().status == 400
        assert wire.rest() == b""


def test_http_1_0_knows_no_100(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"POST /x HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok")
        assert wire.rest().startswith(b"HTTP/1.1 200")


def test_http_1_0_is_answered_and_closed(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET)
        assert wire.read().json["path"] == "/x"
        assert wire.rest() == b""


def test_a_client_that_leaves_is_told_to_the_application(server: Served) -> None:
    with server.connect() as wire:
        wire.send(post("/leaving", b"x" * 100)[:-50])
        until(lambda: server.app.scopes[-1]["path"] == "/leaving")
    until(lambda: "/leaving" in server.app.gone)


# Refusals ----------------------------------------------------------------------------------------------------

LONG = b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"
LARGE = b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n"
REFUSED = {
    "long target": (LONG, 414, "uri_too_long", "uri_too_long"),
    "endless target": (b"GET /" + b"a" * 100_000, 414, "uri_too_long", "uri_too_long"),
    "large head": (LARGE, 431, "headers_too_large", "headers_too_large"),
    "large head without an end": (LARGE[: MAX_HEAD + 1], 431, "headers_too_large", "headers_too_large"),
    "huge value": (LARGE[:20] + b"a" * 100_000 + b"\r\n\r\n", 431, "headers_too_large", "headers_too_large"),
    "many fields": (MANY, 431, "headers_too_large", "headers_too_large"),
    "10,000 fields": (MANY[:-2] + b"a: b\r\n" * 10_000, 431, "headers_too_large", "headers_too_large"),
} | {
    name: (data, 400, "invalid_request_error", "invalid_framing")
    for name, data in {
        "CL and TE": post("/", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
        "two CL": post("/", b"hello", b"Content-Length: 5\r\n"),
        "TE list": post("/", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: gzip, chunked"),
        "absolute form": b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "version": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "unknown method": b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
        "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "chunk size": chunked("/", b"", 1).replace(b"\r\n0\r\n", b"\r\n-1\r\n"),
        "chunk overflow": chunked("/", b"hello", 5).replace(b"hello", b"hello!"),
        "chunk with bare LF": chunked("/", b"hello", 5).replace(b"5\r\n", b"5\n"),
        "chunk extension": chunked("/", b"hello", 5).replace(b"5\r\n", b"5;" + b"a" * 100_000 + b"\r\n"),
    }.items()
}


@pytest.mark.parametrize(("data", "status", "type_", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_in_the_contract_shape(
    server: Served, data: bytes, status: int, type_: str, reason: str
) -> None:
    before = [scope["path"] for scope in server.app.scopes].count("/next")
    with server.connect() as wire:
        wire.send(post("/first", b"1"))
        assert wire.read().status == 200
        wire.send(data + GET)
        answer = wire.read()
        error = answer.json["error"]
        assert (answer.status, error["code"], error["type"], error["reason"]) == (
            status,
            status,
            type_,
            reason,
        )
        assert error["message"]
        assert set(error) == {"code", "message", "type", "reason", "request_id"}
        assert answer.headers.pop("date")
        assert answer.headers == {
            "content-type": "application/json",
            "content-length": str(len(answer.body)),
            "connection": "close",
            "x-request-id": error["request_id"],
        }
        assert error["request_id"].startswith("req_")
        assert wire.rest() == b""
    assert [scope["path"] for scope in server.app.scopes].count("/next") == before


def test_a_limit_is_answered_when_it_is_crossed(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(20):
            wire.send(b"a" * 1000)  # no end in sight
        assert wire.read().status == 431


def test_a_broken_body_ends_a_begun_answer_without_another(server: Served) -> None:
    with server.connect() as wire:
        wire.send(chunked("/half", b"hello", 5).removesuffix(b"0\r\n\r\n"))
        until(lambda: server.app.scopes[-1]["path"] == "/half")
        assert wire.reader.readline() == b"HTTP/1.1 200 OK\r\n"
        wire.send(b"zz\r\n")
        rest = wire.rest()
        assert rest.endswith(b"\r\n\r\n5\r\nbegun\r\n")
    until(lambda: "/half" in server.app.gone)


def test_a_broken_body_looks_like_a_client_that_left(server: Served) -> None:
    answer = server.ask(chunked("/broken", b"hello", 5).replace(b"0\r\n", b"?\r\n"))
    assert answer.status == 400
    until(lambda: "/broken" in server.app.gone)


def test_limits_do_not_touch_what_is_allowed(server: Served) -> None:
    long = b"GET /" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    many = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_FIELDS + b"\r\n"
    large = b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD - 23) + b"\r\n\r\n"
    assert len(large) == MAX_HEAD
    for data in (long, many, large):
        assert server.ask(data[:100], data[100:]).status == 200


# Time-outs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    with served(header_timeout=0.3, keep_alive=0.6) as running:
        yield running


def test_a_slow_head_is_answered_408(impatient: Served) -> None:
    for first in (b"", post("/x", BODY)):
        with impatient.connect() as wire:
            if first:
                wire.send(first)
                assert wire.read().status == 200
            began = time.monotonic()
            for byte in GET[:-4] * 10:
                wire.send(bytes([byte]))
                time.sleep(0.02)
                if time.monotonic() - began > 0.29:
                    break
            answer = wire.read()
            assert (answer.status, answer.json["error"]["type"]) == (408, "request_timeout")
            assert 0.25 < time.monotonic() - began < 0.6
            assert wire.rest() == b""


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_silence_is_closed_without_a_word(impatient: Served, data: bytes) -> None:
    with impatient.connect() as wire:
        began = time.monotonic()
        wire.send(data)
        assert wire.rest() == b""
        assert 0.25 < time.monotonic() - began < 0.6


def test_an_idle_connection_lives_for_keep_alive(impatient: Served) -> None:
    with impatient.connect() as wire:
        wire.send(GET)
        assert wire.read().status == 200
        began = time.monotonic()
        assert wire.rest() == b""
        assert 0.5 < time.monotonic() - began < 0.9


def test_a_running_request_has_no_head_timeout(impatient: Served) -> None:
    impatient.app.released.clear()
    with impatient.connect() as wire:
        wire.send(post("/wait", b"a") + GET[:10])
        time.sleep(0.5)  # beyond header_timeout, while half of the next head is here
        impatient.app.released.set()
        assert wire.read().body == b"a"
        wire.send(GET[10:])
        assert wire.read().json["path"] == "/next"


# Shutting down -----------------------------------------------------------------------------------------------


def test_a_request_that_runs_at_shutdown_is_answered_and_closed() -> None:
    with served() as server, server.connect() as idle, server.connect() as busy:
        idle.send(GET)
        assert idle.read().status == 200
        busy.send(post("/wait", b"a" * 10)[:-5])
        until(lambda: server.app.scopes[-1]["path"] == "/wait")
        server.server.should_exit = True
        assert idle.rest() == b""
        busy.send(b"aaaaa")
        server.app.released.set()
        answer = busy.read()
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"a" * 10, "close")
        assert busy.rest() == b""


def test_the_connection_is_ended_by_the_server_not_only_half(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "SILENCE_SECONDS", 0.2)
    with server.connect() as wire:
        wire.send(b"nonsense\r\n\r\n")
        assert wire.read().status == 400
        assert wire.rest() == b""
        until(lambda: not server.server.server_state.connections)


def test_json_shape_is_the_only_shape(server: Served) -> None:
    raw = json.loads(server.ask(b"GET / HTTP/9.9\r\n\r\n").body)
    assert list(raw) == ["error"]
