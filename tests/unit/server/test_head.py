"""Which heads are refused, and with what."""

import pytest

from gateway.errors import GatewayError
from gateway.server.head import MAX_FIELDS, MAX_HEAD, MAX_TARGET, check_unfinished, read_head

LINE = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("fields", "length", "chunked"),
    [
        (b"", 0, False),
        (b"Content-Length: 0\r\n", 0, False),
        (b"content-length:\t12 \r\n", 12, False),
        (b"Transfer-Encoding: Chunked\r\n", -1, True),
        (b"X: Content-Length: 5\r\n", 0, False),
        (b"X-Content-Length: 5\r\n", 0, False),
    ],
)
def test_where_the_body_ends(fields: bytes, length: int, chunked: bool) -> None:
    data = LINE + fields + b"\r\n"
    head = read_head(data)
    assert (head.length, head.chunked, head.data) == (length, chunked, data)
    assert head.has_body == (length != 0)


@pytest.mark.parametrize(
    "fields",
    [
        *(
            b"Content-Length: " + value + b"\r\n"
            for value in (b"+5", b"-1", b"0x5", b"5 5", b"1e1", b"", b"9" * 25, b"5,6", b"5, 5", b"\xb2")
        ),
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        *(
            b"Transfer-Encoding: " + value + b"\r\n"
            for value in (
                b"xchunked",
                b"chunked, identity",
                b"gzip, chunked",
                b"chunked,",
                b"identity",
                b"",
                b"\x0bchunked",
            )
        ),
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"X: a\r\n b\r\n",
        b" X: a\r\n",
        b"no colon\r\n",
        b": no name\r\n",
        b"X: nul\x00\r\n",
        b"X: bare\rreturn\r\n",
        b"X: bare\nfeed\r\n",
        b"X\xe4: y\r\n",
    ],
)
def test_malformed_fields(fields: bytes) -> None:
    with pytest.raises(GatewayError) as refusal:
        read_head(LINE + fields + b"\r\n")
    assert (refusal.value.status, refusal.value.reason) == (400, "invalid_framing")


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/0.9",
        b"GET / http/1.1",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /a b HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET http://169.254.169.254/ HTTP/1.1",
        b"GET x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT 127.0.0.1:22 HTTP/1.1",
        b"CONNECT /x HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"",
    ],
)
def test_malformed_request_lines(line: bytes) -> None:
    with pytest.raises(GatewayError) as refusal:
        read_head(line + b"\r\nHost: x\r\n\r\n")
    assert refusal.value.status == 400


def test_a_chunked_body_needs_http_1_1() -> None:
    with pytest.raises(GatewayError):
        read_head(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert read_head(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n").length == 3


def test_limits_are_exact() -> None:
    def head(target: int = 1, fields: int = 0, size: int = 0) -> bytes:
        start = b"GET /" + b"a" * (target - 1) + b" HTTP/1.1\r\n" + b"a: b\r\n" * fields
        filler = b"f: " + b"x" * (size - len(start) - 7) + b"\r\n" if size else b""
        return start + filler + b"\r\n"

    for allowed in (head(target=MAX_TARGET), head(fields=MAX_FIELDS), head(size=MAX_HEAD)):
        assert read_head(allowed).data == allowed
    assert len(head(size=MAX_HEAD)) == MAX_HEAD
    for refused, status in (
        (head(target=MAX_TARGET + 1), 414),
        (head(fields=MAX_FIELDS + 1), 431),
        (head(size=MAX_HEAD + 1), 431),
    ):
        with pytest.raises(GatewayError) as refusal:
            read_head(refused)
        assert refusal.value.status == status


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        (b"Connection: Upgrade, HTTP2-Settings\r\n", b""),
        (b"Connection: keep-alive, Upgrade\r\n", b"connection: keep-alive\r\n"),
        (b"connection: close,upgrade , x-hop\r\n", b"connection: close, x-hop\r\n"),
        (b"Connection: upgrade\r\nConnection: close\r\n", b"connection: close\r\n"),
    ],
)
def test_an_offer_to_upgrade_is_taken_out(connection: bytes, left: bytes) -> None:
    head = read_head(LINE + connection + b"uPgrade: h2c\r\nHTTP2-Settings: AAEAAE\r\nX: upgrade: h2c\r\n\r\n")
    assert head.data == LINE + left + b"X: upgrade: h2c\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b" GET / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\rb", 400),
        (b"GET /" + b"a" * (MAX_TARGET + 100), 414),
        (b"G" * 100_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD, 431),
    ],
)
def test_hopeless_beginnings(data: bytes, status: int) -> None:
    with pytest.raises(GatewayError) as refusal:
        check_unfinished(data)
    assert refusal.value.status == status


def test_every_beginning_of_a_good_head_may_continue() -> None:
    head = LINE + b"Content-Length: 5\r\n\r\n"
    for end in range(1, len(head)):
        check_unfinished(head[:end])
