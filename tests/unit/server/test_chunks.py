"""The framing of chunked bodies, in every cut."""

import pytest

from gateway.errors import GatewayError
from gateway.server.chunks import MAX_SIZE_LINE, MAX_TRAILERS, ChunkedBody

BODY = b'5\r\nhello\r\n1a;name="v"\r\nabcdefghijklmnopqrstuvwxyz\r\n'


def test_end_found_in_every_cut() -> None:
    whole = BODY + b"0\r\nX-Trailer: 1\r\nY: 2\r\n\r\n"
    data = whole + b"GET /next HTTP/1.1\r\n"
    for cut in range(len(data) + 1):
        body = ChunkedBody()
        parsed, rest = body.take(data[:cut])
        assert body.ended == (cut >= len(whole))
        assert not rest or body.ended
        if not body.ended:
            more, rest = body.take(data[cut:])
            parsed += more
            assert parsed == BODY + b"0\r\n\r\n"
            assert rest == data[len(whole) :]


def test_byte_by_byte() -> None:
    body = ChunkedBody()
    parsed = b"".join(body.take(bytes([byte]))[0] for byte in BODY + b"0\r\n\r\n")
    assert body.ended
    assert parsed == BODY + b"0\r\n\r\n"


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
