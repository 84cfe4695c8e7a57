"""Which heads are refused, and with what."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.server.head import MAX_FIELDS, MAX_HEAD, MAX_TARGET, METHODS, check_unfinished, read_head

LINE = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("fields", "length", "chunked"),
    [
        (b"", 0, False),
        (b"Content-Length: 0\r\n", 0, False),
        (b"content-length:\t12 \r\n", 12, False),
        (b"Transfer-Encoding: Chunked\r\n", 0, True),
        (b"X: Content-Length: 5\r\n", 0, False),
        (b"X-Content-Length: 5\r\n", 0, False),
    ],
)
def test_where_the_body_ends(fields: bytes, length: int, chunked: bool) -> None:
    framing = read_head(LINE + fields + b"\r\n").framing
    assert (framing.length, framing.chunked, framing.has_body) == (length, chunked, bool(length) or chunked)


def test_what_a_head_says() -> None:
    head = read_head(
        b"GET /v1/a%20b//c?d=1?2 HTTP/1.1\r\nHost:x:1\r\nX-A: \t b  c \t\r\nx-a:\r\nX: \xe4: d\r\n\r\n"
    )
    assert head[:4] == ("GET", b"/v1/a%20b//c", b"d=1?2", "1.1")
    assert head.fields == [(b"host", b"x:1"), (b"x-a", b"b  c"), (b"x-a", b""), (b"x", b"\xe4: d")]
    assert read_head(b"GET / HTTP/1.1\r\n\r\n")[:5] == ("GET", b"/", b"", "1.1", [])


@pytest.mark.parametrize(
    ("version", "fields", "closes", "expects_continue"),
    [
        (b"1.1", b"", False, False),
        (b"1.1", b"Connection: keep-alive\r\n", False, False),
        (b"1.1", b"Connection: closed\r\n", False, False),
        (b"1.1", b"Connection: x, Close\r\n", True, False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", True, False),
        (b"1.0", b"", True, False),
        (b"1.0", b"Connection: keep-alive\r\n", True, False),
        (b"1.1", b"Expect: 100-Continue\r\n", False, True),
        (b"1.1", b"Expect: 200-ok\r\n", False, False),
    ],
)
def test_what_becomes_of_the_connection(
    version: bytes, fields: bytes, closes: bool, expects_continue: bool
) -> None:
    framing = read_head(b"GET / HTTP/" + version + b"\r\n" + fields + b"\r\n").framing
    assert (framing.closes, framing.expects_continue) == (closes, expects_continue)


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
        b"BREW / HTTP/1.1",
        b"PROPFINDS / HTTP/1.1",
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
    assert read_head(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n").framing.length == 3


def test_limits_are_exact() -> None:
    def head(target: int = 1, fields: int = 0, size: int = 0) -> bytes:
        start = b"GET /" + b"a" * (target - 1) + b" HTTP/1.1\r\n" + b"a: b\r\n" * fields
        filler = b"f: " + b"x" * (size - len(start) - 7) + b"\r\n" if size else b""
        return start + filler + b"\r\n"

    for allowed in (head(target=MAX_TARGET), head(fields=MAX_FIELDS), head(size=MAX_HEAD)):
        assert read_head(allowed).method == "GET"
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
        (b"Connection: Upgrade, HTTP2-Settings\r\n", []),
        (b"Connection: keep-alive, Upgrade\r\n", [b"keep-alive"]),
        (b"connection: close,upgrade , x-hop\r\n", [b"close, x-hop"]),
        (b"Connection: upgrade\r\nConnection: close\r\n", [b"close"]),
    ],
)
def test_an_offer_to_upgrade_is_taken_out(connection: bytes, left: list[bytes]) -> None:
    head = read_head(LINE + connection + b"uPgrade: h2c\r\nHTTP2-Settings: AAEAAE\r\nX: upgrade: h2c\r\n\r\n")
    options = [(b"connection", value) for value in left]
    assert head.fields == [(b"host", b"x"), *options, (b"x", b"upgrade: h2c")]
    assert head.framing.closes == any(b"close" in value for value in left)


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


class Other:
    """What another parser makes of the same bytes."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.keeps_alive = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.keeps_alive = self.parser.should_keep_alive()  # behind the message it has forgotten

    def on_message_complete(self) -> None:
        self.complete = True


NAMES = st.one_of(
    st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-A"]),
    st.binary(min_size=1, max_size=4),
)
VALUES = st.one_of(
    st.sampled_from([b"0", b"5", b"05", b"chunked", b"close", b"keep-alive, close", b"100-continue", b""]),
    st.binary(max_size=8),
)
WHITE = st.sampled_from([b"", b" ", b"\t ", b"\r\n "])
LINES = st.tuples(NAMES, st.sampled_from([b":", b": ", b" :"]), VALUES, WHITE).map(b"".join)
TARGETS = st.one_of(
    st.sampled_from([b"/", b"/v1/models?a=1?b", b"//x", b"/%2e?"]), st.binary(max_size=6).map(b"/".__add__)
)


@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"PROPFIND", b"M-SEARCH", b"GETS"]),
    target=TARGETS,
    version=st.sampled_from([b"1.1", b"1.0"]),
    lines=st.lists(LINES, max_size=5),
)
@example(method=b"GET", target=b"/", version=b"1.1", lines=[b"Host:0", b"Connection:close"])
@example(method=b"GET", target=b"/", version=b"1.1", lines=[b"Connection: a, Close ,b", b"Host: x"])
@settings(max_examples=500)
def test_whatever_is_accepted_another_parser_reads_the_same(
    method: bytes, target: bytes, version: bytes, lines: list[bytes]
) -> None:
    data = b"\r\n".join([method + b" " + target + b" HTTP/" + version, *lines, b"", b""])
    assume(data.index(b"\r\n\r\n") == len(data) - 4)  # the connection hands over no more than one head
    try:
        head = read_head(data)
    except GatewayError:
        return
    other = Other()
    other.parser.feed_data(data)
    framing = head.framing
    assert other.parser.get_method() == head.method.encode()
    assert other.url == target
    assert other.fields == head.fields
    assert other.keeps_alive == (not framing.closes) or version == b"1.0"
    if framing.has_body:
        assert not other.complete
        other.parser.feed_data(b"0\r\n\r\n" if framing.chunked else b"x" * framing.length)
    assert other.complete


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_methods_are_those_of_http(method: bytes) -> None:
    other = Other()
    other.parser.feed_data(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert other.parser.get_method() == method
    assert read_head(method + b" / HTTP/1.1\r\n\r\n").method == method.decode()
