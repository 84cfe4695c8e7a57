"""Where bodies end, in every cut."""

import pytest

from gateway.errors import GatewayError
from gateway.server.bodies import MAX_SIZE_LINE, MAX_TRAILERS, ChunkedBody, SizedBody

BODY = b'5\r\nhello\r\n1a;name="v"\r\nabcdefghijklmnopqrstuvwxyz\r\n'
DATA = b"helloabcdefghijklmnopqrstuvwxyz"


def test_end_found_in_every_cut() -> None:
    whole = BODY + b"0\r\nX-Trailer: 1\r\nY: 2\r\n\r\n"
    data = whole + b"GET /next HTTP/1.1\r\n"
    for cut in range(len(data) + 1):
        body = ChunkedBody()
        found, rest = body.take(data[:cut])
        assert body.ended == (cut >= len(whole))
        assert not rest or body.ended
        if not body.ended:
            more, rest = body.take(data[cut:])
            found += more
            assert rest == data[len(whole) :]
        assert (found, body.ended) == (DATA, True)


def test_byte_by_byte() -> None:
    body = ChunkedBody()
    found = b"".join(body.take(bytes([byte]))[0] for byte in BODY + b"0\r\n\r\n")
    assert body.ended
    assert found == DATA


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"5\nhello\r\n", 400),
        (b"-5\r\n", 400),
        (b"+5\r\n", 400),
        (b"0x5\r\n", 400),
        (b"1_0\r\n", 400),
        (b"5 \r\n", 400),
        (b" 5\r\n", 400),
        (b"\r\n", 400),
        (b"ffffffffffffffffffff\r\n", 400),
        (b"5;a=\x00\r\n", 400),
        (b"5\r\nhelloo", 400),
        (b"5\r\nhello\n0", 400),
        (b"5\r\nhello\r0", 400),
        (b"5;" + b"a" * MAX_SIZE_LINE, 400),
        (b"0\r\nX: 1\n\r\n", 400),
        (b"0\r\nX: " + b"a" * MAX_TRAILERS, 431),
        (b"0\r\n" + b"X: a\r\n" * MAX_TRAILERS, 431),
    ],
)
def test_malformed(data: bytes, status: int) -> None:
    for cut in (0, 1, len(data) - 1):
        body = ChunkedBody()
        with pytest.raises(GatewayError) as refusal:
            body.take(data[:cut]), body.take(data[cut:])
        assert refusal.value.status == status


def test_a_length_is_kept_to_in_every_cut() -> None:
    data = DATA + b"GET /next HTTP/1.1\r\n"
    for cut in range(len(data) + 1):
        body = SizedBody(len(DATA))
        found, rest = body.take(data[:cut])
        assert body.ended == (cut >= len(DATA))
        assert rest == data[len(DATA) : cut]
        if not body.ended:
            more, rest = body.take(data[cut:])
            found += more
            assert rest == data[len(DATA) :]
        assert (found, body.ended) == (DATA, True)
