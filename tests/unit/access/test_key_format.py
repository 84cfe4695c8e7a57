"""Keys: how they look, what a checksum turns away, and how they are digested."""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_format import (
    ADMIN_TOKEN,
    ALPHABET,
    LENGTH,
    TEAM_KEY,
    ParsedKey,
    Peppers,
    checksum,
    make,
    parse,
)

Kind = Literal["pxg", "pxa"]
BASE62 = st.text(alphabet=ALPHABET, min_size=42, max_size=42)


def key_of(text: str, kind: Kind) -> str:
    """A whole key from 42 characters of id and secret."""
    body = f"{kind}_{text[:10]}_{text[10:]}"
    return body + checksum(body)


@pytest.mark.parametrize("kind", [TEAM_KEY, ADMIN_TOKEN])
def test_a_new_key_has_the_contract_s_shape(kind: Kind) -> None:
    made = make(kind)
    assert re.fullmatch(kind + r"_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", made.text)
    assert made == ParsedKey(kind, made.text[4:14], made.text)
    assert parse(made.text, kind) == made


def test_new_keys_differ() -> None:
    made = [make(TEAM_KEY) for _ in range(200)]
    assert len({key.public_id for key in made}) == len({key.text for key in made}) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "000000"),  # CRC-32 of nothing is 0
        ("a", "4GEHKN"),
        ("pxg_216", "000R8f"),
        ("pxg_0123456789_abcdefghijklmnopqrstuvwxyzABCDEF", "01FMwt"),
    ],
)
def test_the_checksum_is_crc32_in_base62(text: str, expected: str) -> None:
    assert checksum(text) == expected


@given(st.text(alphabet=ALPHABET + "_", max_size=60))
def test_the_checksum_reads_back_as_the_crc(text: str) -> None:
    digits = checksum(text)
    assert len(digits) == 6
    worth = [ALPHABET.index(digit) * 62**place for place, digit in enumerate(reversed(digits))]
    assert sum(worth) == zlib.crc32(text.encode())


@given(BASE62)
def test_any_secret_makes_a_good_key(text: str) -> None:
    key = key_of(text, TEAM_KEY)
    assert parse(key, TEAM_KEY) == ParsedKey(TEAM_KEY, text[:10], key)
    assert parse(key, ADMIN_TOKEN) is None


@given(BASE62, st.integers(0, 52), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_turned_away(text: str, position: int, other: str) -> None:
    key = key_of(text, TEAM_KEY)
    wrong = key[:position] + other + key[position + 1 :]
    if wrong != key:
        assert parse(wrong, TEAM_KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.replace("pxg_", "PXG_"),
        lambda key: key.replace("_", "-"),
        lambda key: key[:20] + "é" + key[21:],
        lambda key: key[:20] + "\0" + key[21:],
        lambda key: "",
        lambda key: "sk-1234567890",
    ],
)
def test_anything_else_is_not_a_key(change: object) -> None:
    assert callable(change)
    assert parse(change(make(TEAM_KEY).text), TEAM_KEY) is None


@given(st.text(max_size=70))
def test_any_text_is_read_or_not(text: str) -> None:
    found = parse(text, TEAM_KEY)
    assert found is None or found.text == text


def test_the_first_pepper_signs_and_all_verify() -> None:
    text = make(TEAM_KEY).text
    old, new = Peppers(["old pepper"]), Peppers(["new pepper", "old pepper"])
    assert old.sign(text) == hmac.new(b"old pepper", text.encode(), hashlib.sha256).digest()
    assert new.sign(text) != old.sign(text)
    assert new.digests(text) == [new.sign(text), old.sign(text)]


@pytest.mark.parametrize("kind", [TEAM_KEY, ADMIN_TOKEN])
def test_every_key_is_as_long(kind: Kind) -> None:
    assert {len(make(kind).text) for _ in range(20)} == {LENGTH}
