"""What a request knows of its own headers."""

from __future__ import annotations

import pytest

from gateway.proxy.exchange import Exchange, begin, exchange_of

HEADERS = ((b"accept", b"a"), (b"x", b"1"), (b"x", b"2"), (b"empty", b""))


@pytest.mark.parametrize(
    ("name", "first", "values"),
    [
        (b"x", b"1", [b"1", b"2"]),
        (b"accept", b"a", [b"a"]),
        (b"empty", b"", [b""]),
        (b"none", None, []),
    ],
)
def test_headers_are_found_in_order(name: bytes, first: bytes | None, values: list[bytes]) -> None:
    exchange = Exchange("req_1", 0.0, None, HEADERS)
    assert exchange.header(name) == first
    assert exchange.header_values(name) == values


def test_a_scope_has_the_exchange_it_was_given() -> None:
    first, second = Exchange("req_1", 0.0, None, ()), Exchange("req_2", 0.0, None, ())
    scope, other = {"type": "http"}, {"type": "http"}
    begin(scope, first)
    begin(other, second)
    assert exchange_of(scope) is first
    assert exchange_of(other) is second
    first.answer_headers.append((b"a", b"b"))
    assert second.answer_headers == []
    with pytest.raises(KeyError):
        exchange_of({"type": "http"})
