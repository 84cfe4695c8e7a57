"""Where a body ends, and what may follow it: told in exactly one way or refused."""

from __future__ import annotations

import pytest

from tests.e2e.data_plane.raw_calls import BODY, JSON, LENGTH, exchange, post, refused
from tests.e2e.data_plane.rig import EDITS, SYNC, Rig, error_of
from tests.e2e.data_plane.wire import Wire, chunked, head


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
