"""Heads and framing as no client library would write them: refused or read in exactly one way."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.data_plane.rig import EDITS, SYNC, Rig, error_of
from tests.e2e.data_plane.wire import Wire, chunked, head

BODY = b'{"model":"nano-banana","prompt":"A cup"}'
LENGTH = f"Content-Length: {len(BODY)}"
JSON = "Content-Type: application/json"


def post(rig: Rig, *fields: str, path: str = SYNC, host: str = "Host: gateway") -> bytes:
    """The head of a paid call that would work with the right framing."""
    return head(f"POST {path} HTTP/1.1", host, f"Authorization: Bearer {rig.key}", JSON, *fields)


def exchange(rig: Rig, data: bytes) -> tuple[httpx.Response, bytes]:
    """The first answer to these bytes, and what comes after it until the server ends the connection."""
    with Wire(rig.gateway.process.port) as wire:
        wire.send(data)
        answer = wire.answer()
        return answer, wire.rest()


def refused(rig: Rig, data: bytes, status: int = 400, kind: str = "invalid_request_error") -> None:
    """These bytes get this error, once, and the connection ends; nothing is sent or held."""
    before = rig.rows("SELECT count(*) AS count FROM holds")
    answer, rest = exchange(rig, data)
    error_of(answer, status, kind)
    assert answer.headers["connection"] == "close"
    assert rest == b""
    assert rig.untouched(answer)
    assert rig.rows("SELECT count(*) AS count FROM holds") == before


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Host: a", "Host: a"),
        ("Host: a", "Host: b"),
        ("Host:",),
        ("Host:  ",),
        ("Host: x/v1/models?",),
        ("Host: x/healthz?",),
        ("Host: x#",),
        ("Host: user@x",),
        ("Host: x y",),
        ("Host: x:port",),
        ("Host: x:123456",),
        ("Host: [::1",),
        ("Host: x,y",),
        ("Host: x\\y",),
        ("Host: -x",),
        ("Host: x\xe9",),
        ("Host: " + "x" * 300,),
    ],
)
def test_an_odd_host_is_refused(shared: Rig, fields: tuple[str, ...]) -> None:
    refused(
        shared,
        head(f"POST {SYNC} HTTP/1.1", *fields, f"Authorization: Bearer {shared.key}", JSON, LENGTH) + BODY,
    )


@pytest.mark.parametrize(
    "host", ["gateway", "Gateway.Example.com:8080", "127.0.0.1:80", "[::1]:8080", "a_b.c-d"]
)
def test_any_well_formed_host_is_served(shared: Rig, host: str) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, host=f"Host: {host}") + BODY)
        assert wire.answer().status_code == 200


def test_a_host_does_not_open_the_admin_api(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head("GET /admin/api/teams HTTP/1.1", "Host: localhost"))
        error_of(wire.answer(), 401, "authentication_error", "invalid_admin_token")


def test_both_lengths_end_the_connection_and_what_is_behind_is_not_served(shared: Rig) -> None:
    behind = head("GET /healthz HTTP/1.1", "Host: gateway")
    for first, second in (("Content-Length: 5", "Transfer-Encoding: chunked"),) * 2:
        refused(shared, post(shared, first, second) + chunked(BODY) + behind)
        refused(shared, post(shared, second, first) + chunked(BODY) + behind)


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 40", "Content-Length: 41"),
        ("Content-Length: 40", "Content-Length: 40"),
        ("Content-Length: +40",),
        ("Content-Length: -1",),
        ("Content-Length: 0x28",),
        ("Content-Length: 4 0",),
        ("Content-Length: 4e1",),
        ("Content-Length: 40.0",),
        ("Content-Length:",),
        ("Content-Length: " + "1" * 25,),
        ("Content-Length: 40, 40",),
        ("Content-Length: 40,41",),
        ("Content-Length : 40",),
        ("Content-Length: 40\v",),
        ("Content_Length: 40", "Transfer-Encoding : chunked"),
    ],
)
def test_an_odd_content_length_is_refused(shared: Rig, fields: tuple[str, ...]) -> None:
    refused(shared, post(shared, *fields) + BODY)


@pytest.mark.parametrize(
    "fields",
    [
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: identity, chunked",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: chunked,",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
        ("Transfer-Encoding:\r\n chunked",),
        ('Transfer-Encoding: "chunked"',),
        ("Transfer-Encoding:",),
    ],
)
def test_an_odd_transfer_encoding_is_refused(shared: Rig, fields: tuple[str, ...]) -> None:
    refused(shared, post(shared, *fields) + chunked(BODY))


@pytest.mark.parametrize(
    "body",
    [
        b"%x\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
        b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY),
        b"-1\r\n%s\r\n0\r\n\r\n" % BODY,
        b"2_8\r\n%s\r\n0\r\n\r\n" % BODY,
        b"0x28\r\n%s\r\n0\r\n\r\n" % BODY,
        b"fffffffffffffffff\r\n%s\r\n0\r\n\r\n" % BODY,
        b"28;%s\r\n%s\r\n0\r\n\r\n" % (b"x" * 100_000, BODY),
        b"\r\n%s\r\n0\r\n\r\n" % BODY,
        b"28 \x01\r\n%s\r\n0\r\n\r\n" % BODY,
    ],
)
def test_broken_chunks_are_refused(shared: Rig, body: bytes) -> None:
    refused(shared, post(shared, "Transfer-Encoding: chunked") + body)


def test_a_chunked_body_is_read_whatever_its_pieces(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, "Transfer-Encoding: Chunked") + chunked(BODY[:1], BODY[1:7], BODY[7:]))
        answer = wire.answer()
    assert answer.status_code == 200
    [entry] = shared.sent(answer)
    assert entry["body_text"] == BODY.decode()
    names = [name for name, _ in entry["headers"]]
    assert names.count("content-length") == 1
    assert "transfer-encoding" not in names


def test_trailers_are_no_headers(shared: Rig) -> None:
    trailers = "x-request-id: from-the-trailers\r\nAccept: text/trailer\r\nauthorization: Bearer x\r\n"
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, "Transfer-Encoding: chunked") + chunked(BODY, trailers=trailers))
        answer = wire.answer()
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] != "from-the-trailers"
        [entry] = shared.sent(answer)
        assert "trailer" not in str(entry["headers"])
        # A key in the trailers is none either.
        line = f"POST {SYNC} HTTP/1.1"
        wire.send(head(line, "Host: gateway", JSON, "Transfer-Encoding: chunked"))
        wire.send(chunked(BODY, trailers=f"Authorization: Bearer {shared.key}\r\n"))
        error_of(wire.answer(), 401, "authentication_error")


def test_a_refused_caller_is_not_asked_for_its_body(shared: Rig) -> None:
    fields = ["Host: gateway", "Authorization: Bearer pxg_wrong", JSON, "Content-Length: 50000000"]
    data = head(f"POST {SYNC} HTTP/1.1", *fields, "Expect: 100-continue")
    refused(shared, data, 401, "authentication_error")


def test_expect_100_continue_is_met(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, "Expect: 100-continue"))
        assert wire.answer().status_code == 100
        wire.send(BODY)
        answer = wire.answer()
    assert answer.status_code == 200
    [entry] = shared.sent(answer)
    assert "expect" not in [name for name, _ in entry["headers"]]


@pytest.mark.parametrize("value", ["200-ok", "100-continue, more", ""])
def test_another_expectation_fails(shared: Rig, value: str) -> None:
    answer, _ = exchange(shared, post(shared, LENGTH, f"Expect: {value}", "Connection: close") + BODY)
    assert answer.status_code == 417
    error_of(answer, 417, "invalid_request_error", "expectation_failed")
    assert shared.untouched(answer)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "x"])
def test_a_compressed_body_is_refused(shared: Rig, coding: str) -> None:
    answer = shared.client.post(
        SYNC, content=BODY, headers={"content-type": "application/json", "content-encoding": coding}
    )
    error_of(answer, 415, "unsupported_media_type")
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "fields",
    [
        [f"x-{number}: v" for number in range(101)],
        [f"x-{number}: v" for number in range(3_000)],
        ["x-long: " + "v" * 16_384],
        ["x-long: " + "v" * 100_000],
        [f"x-{number}: {'v' * 1000}" for number in range(20)],
    ],
)
def test_headers_have_limits(shared: Rig, fields: list[str]) -> None:
    refused(shared, post(shared, LENGTH, *fields) + BODY, 431, "headers_too_large")


def test_a_hundred_headers_and_eight_kilobytes_of_target_are_fine(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, *(f"x-{number}: v" for number in range(96))) + BODY)
        assert wire.answer().status_code == 200
        target = "/v1/models?" + "a" * (8192 - 11)
        wire.send(head(f"GET {target} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {shared.key}"))
        assert wire.answer().status_code == 200


@pytest.mark.parametrize(
    "target", ["/v1/models?" + "a" * 8182, "/v1/" + "m" * 8189, "/v1/models?" + "a" * 100_000]
)
def test_a_target_has_its_limit(shared: Rig, target: str) -> None:
    refused(shared, head(f"GET {target} HTTP/1.1", "Host: gateway"), 414, "uri_too_long")


@pytest.mark.parametrize(
    "line",
    [
        "GET http://169.254.169.254/ HTTP/1.1",
        "GET http://gateway/v1/models HTTP/1.1",
        "CONNECT gateway:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /v1/models#x HTTP/1.1",
        "GET /v1/models HTTP/2.0",
        "GET /v1/models HTTP/1.2",
        "GET /v1/models HTTP/0.9",
        "GET /v1/models http/1.1",
        "GET  /v1/models HTTP/1.1",
        "GET /v1/models  HTTP/1.1",
        "GET /v1/mod els HTTP/1.1",
        "GET /v1/models",
        "get /v1/models HTTP/1.1",
        "GET\t/v1/models HTTP/1.1",
        "GET v1/models HTTP/1.1",
        "\x16\x03\x01\x02 HTTP/1.1",
    ],
)
def test_an_odd_request_line_is_refused(shared: Rig, line: str) -> None:
    refused(shared, head(line, "Host: gateway", f"Authorization: Bearer {shared.key}"))


@pytest.mark.parametrize(
    "line",
    [
        "x-folded: a\r\n b",
        " x-space: a",
        "x-no-colon",
        ": no-name",
        "x space: a",
        "x-nul: a\x00b",
        "x-bare: a\rb",
        "x-bare: a\nx-next: b",
    ],
)
def test_an_odd_header_line_is_refused(shared: Rig, line: str) -> None:
    refused(shared, post(shared, LENGTH, line) + BODY)


def test_pipelined_calls_are_each_answered_once_and_in_order(shared: Rig) -> None:
    ids = ["pipelined-first", "pipelined-second"]
    with Wire(shared.gateway.process.port) as wire:
        wire.send(b"".join(post(shared, LENGTH, f"x-request-id: {one}") + BODY for one in ids))
        answers = [wire.answer() for _ in ids]
    assert [answer.headers["x-request-id"] for answer in answers] == ids
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [len(shared.sent(one)) for one in ids] == [1, 1]


def test_a_bad_request_behind_a_good_one_does_not_disturb_it(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH) + BODY + b"NONSENSE\r\n\r\n")
        assert wire.answer().status_code == 200
        error_of(wire.answer(), 400, "invalid_request_error")
        assert wire.is_closed()


def test_an_offer_to_upgrade_is_ignored(shared: Rig) -> None:
    fields = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ]
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, *fields) + BODY)
        answer = wire.answer()
    assert answer.status_code == 200
    assert shared.sent(answer)[0]["body_text"] == BODY.decode()


def test_a_body_that_does_not_come_to_its_end_is_never_sent(shared: Rig) -> None:
    ids = ["half-a-body-sized", "half-a-body-chunked", "half-a-form"]
    form = "Content-Type: multipart/form-data; boundary=abcdefgh"
    bodies = [
        post(shared, LENGTH, f"x-request-id: {ids[0]}") + BODY[:-1],
        post(shared, "Transfer-Encoding: chunked", f"x-request-id: {ids[1]}") + chunked(BODY)[:-2],
        head(
            f"POST {EDITS} HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {shared.key}",
            form,
            "Content-Length: 9999",
            f"x-request-id: {ids[2]}",
        )
        + b'--abcdefgh\r\nContent-Disposition: form-data; name="model"\r\n\r\nnano-banana\r\n--abcdefgh--\r\n',
    ]
    for body in bodies:
        with Wire(shared.gateway.process.port) as wire:
            wire.send(body)
            wire.end_sending()
            assert wire.is_closed()
    assert all(shared.untouched(one) for one in ids)
