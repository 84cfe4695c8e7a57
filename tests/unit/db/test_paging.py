from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.db.paging import decode, encode

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(text, st.lists(text, min_size=1))
def test_a_cursor_is_read_back(name: str, position: list[str]) -> None:
    cursor = encode(name, position)
    assert decode(name, cursor) == position
    assert cursor.isascii()
    assert not set(cursor) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text())
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        decode("a list nobody has", cursor)


@pytest.mark.parametrize(
    "content", ["[]", "[1]", '["other", "x"]', '["teams", 1]', '["teams", "a\\u0000"]', "{}"]
)
def test_what_another_list_or_a_forger_made_is_refused(content: str) -> None:
    with pytest.raises(ValueError):
        decode("teams", base64.urlsafe_b64encode(content.encode()).decode())
