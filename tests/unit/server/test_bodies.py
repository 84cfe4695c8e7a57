"""Where bodies end, in every cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


PIECES = st.one_of(
    st.sampled_from(
        [
            b"1\r\nx\r\n",
            b"3;a\r\n1\r\n\r\n",
            b"0\r\n\r\n",
            b"00\r\n",
            b"2\r\nxyz\r\n",
            b"A\r\n",
            b"\n",
            b"\r\n",
            b";",
        ]
    ),
    st.binary(max_size=3),
    st.integers(MAX_SIZE_LINE - 4, MAX_SIZE_LINE).map(lambda size: b"1;" + b"a" * (size - 2) + b"\r\nx\r\n"),
)


@given(pieces=st.lists(PIECES, max_size=8))
def test_whole_chunks_are_read_as_in_single_bytes(pieces: list[bytes]) -> None:
    data = b"".join([*pieces, b"0\r\n\r\nrest"])
    assert read(data) == read(*(data[at : at + 1] for at in range(len(data))))


def read(*data: bytes) -> tuple[bytes, bytes, bool] | str:
    """The body, what follows it and whether it has ended, or why it is refused."""
    body, found, rest = ChunkedBody(), b"", b""
    try:
        for piece in data:
            if body.ended:
                rest += piece
            else:
                more, rest = body.take(piece)
                found += more
    except GatewayError as refusal:
        return str(refusal)
    return found, rest, body.ended


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
