"""Content codings: plain bytes out, whatever the chunks; anything cut, odd or absurd is an error."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import decoding
from gateway.upstream.decoding import Decoder, UndecodableError


def decoded(body: bytes, coding: str, size: int = 65536) -> bytes:
    decoder = Decoder(coding)
    plain = b"".join(
        piece for start in range(0, len(body), size) for piece in decoder.feed(body[start : start + size])
    )
    decoder.finish()
    return plain


@given(st.binary(max_size=5000), st.integers(1, 600), st.sampled_from(["gzip", "x-gzip", " GZip "]))
def test_gzip_in_any_chunks(content: bytes, size: int, coding: str) -> None:
    assert decoded(gzip.compress(content), coding, size) == content


@given(st.binary(max_size=500), st.binary(max_size=500), st.integers(1, 60))
def test_gzip_of_several_members(first: bytes, second: bytes, size: int) -> None:
    assert decoded(gzip.compress(first) + gzip.compress(second), "gzip", size) == first + second


@given(st.binary(max_size=5000), st.integers(1, 600))
def test_deflate(content: bytes, size: int) -> None:
    assert decoded(zlib.compress(content), "deflate", size) == content


@given(st.binary(max_size=500), st.sampled_from(["", "identity", "br", "gzip, gzip", "unheard-of"]))
def test_other_codings_pass_as_they_are(content: bytes, coding: str) -> None:
    assert decoded(content, coding) == content


@given(st.binary(max_size=500), st.integers(1, 30))
def test_what_is_cut_is_not_whole(content: bytes, missing: int) -> None:
    body = gzip.compress(content)
    with pytest.raises(UndecodableError):
        decoded(body[: max(1, len(body) - missing)], "gzip")


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"\x1f\x8b\x08rubbish-and-more-rubbish", gzip.compress(b"x") + b"rubbish"],
    ids=["html", "half a header", "rubbish behind"],
)
def test_what_is_not_gzip(body: bytes) -> None:
    with pytest.raises(UndecodableError):
        decoded(body, "gzip")


def test_pieces_are_bounded_and_so_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LARGEST", 3_000_000)
    decoder = Decoder("gzip")
    pieces = list(decoder.feed(gzip.compress(bytes(3_000_000))))
    decoder.finish()
    assert sum(map(len, pieces)) == 3_000_000
    assert max(map(len, pieces)) <= 256 * 1024
    with pytest.raises(UndecodableError):
        list(Decoder("gzip").feed(gzip.compress(bytes(3_000_001))))
