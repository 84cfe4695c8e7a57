"""Allow-lists: what crosses towards Pixapi, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import __version__
from gateway.upstream.headers import toward_client, toward_pixapi


def test_a_paid_call_has_exactly_these_headers() -> None:
    headers = toward_pixapi(
        secret="sk_1",
        request_id="req_1",
        content_type=b"multipart/form-data; boundary=x",
        accept=b"application/json",
        content_length=0,
    )
    assert headers == [
        (b"authorization", b"Bearer sk_1"),
        (b"user-agent", b"pixapi-gateway/" + __version__.encode()),
        (b"accept", b"application/json"),
        (b"x-request-id", b"req_1"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-length", b"0"),
    ]


def test_a_read_has_no_content_headers() -> None:
    names = [name for name, _ in toward_pixapi(secret="sk_1", request_id="req_1")]
    assert names == [b"authorization", b"user-agent", b"accept", b"x-request-id"]


@pytest.mark.parametrize(
    ("accept", "sent"),
    [
        (None, b"*/*"),
        (b"", b"*/*"),
        (b"image/*;q=0.5, */*", b"image/*;q=0.5, */*"),
        (b"a\r\nx-evil: 1", b"*/*"),
        (b"\xff", b"*/*"),
        (b"x" * 257, b"*/*"),
    ],
)
def test_only_a_plain_accept_crosses(accept: bytes | None, sent: bytes) -> None:
    headers = dict(toward_pixapi(secret="sk_1", request_id="req_1", accept=accept))
    assert headers[b"accept"] == sent


@pytest.mark.parametrize(
    ("given_type", "sent"),
    [
        (b"application/json; charset=utf-8", b"application/json; charset=utf-8"),
        (None, b"application/octet-stream"),
        (b"", b"application/octet-stream"),
        (b"text/html\r\nset-cookie: a=b", b"application/octet-stream"),
        (b"x" * 257, b"application/octet-stream"),
    ],
)
def test_an_answer_has_a_plain_content_type_and_its_length(given_type: bytes | None, sent: bytes) -> None:
    assert toward_client(given_type, 12) == [(b"content-type", sent), (b"content-length", b"12")]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_header_can_be_split(accept: bytes, content_type: bytes) -> None:
    headers = toward_pixapi(secret="sk_1", request_id="req_1", accept=accept)
    headers += toward_client(content_type, 1)
    assert all(b"\r" not in value and b"\n" not in value for _, value in headers)
