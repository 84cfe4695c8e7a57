"""What the strict reader takes and refuses (A-25), and that it never spends long on it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.proxy.strict_json import MAX_VALUES, parse

MEBIBYTE = 1024 * 1024


def refusal(body: bytes) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.reason) == (400, "invalid_request")
    return caught.value


def outcome(body: bytes) -> dict[str, Any] | GatewayError:
    try:
        return parse(body)
    except GatewayError as error:
        return error


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' \r\n\t{"a": [1, -0, 1.5e3, true, null, "x"]} \n', {"a": [1, 0, 1500.0, True, None, "x"]}),
        ('{"prompt": "Tasse, naïve ☕ \U0001f600"}'.encode(), {"prompt": "Tasse, naïve ☕ \U0001f600"}),
        (b'{"a": "\\ud83d\\ude00 \\\\ud800 \\/ \\u0000"}', {"a": "\U0001f600 \\ud800 / \0"}),
        (b'{"a": {"b": 1}, "c": {"b": 2}}', {"a": {"b": 1}, "c": {"b": 2}}),
        (
            b'{"a": -123456789012345678, "b": 123456789012345678}',
            {"a": -123456789012345678, "b": 123456789012345678},
        ),
        (
            b'{"a": "1234567890123456789012", "b": 0.1234567890123456789012, "c": 1e-400}',
            {"a": "1234567890123456789012", "b": 0.12345678901234568, "c": 0.0},
        ),
        (b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}", None),
        (b'{"a": "' + b"[{" * 100 + b'"}', None),
        (b'{"prompt": "' + b',\\"[' * (MAX_VALUES + 5) + b'"}', None),
    ],
)
def test_reads_what_is_json(body: bytes, value: Any) -> None:
    assert parse(body) == (json.loads(body) if value is None else value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b"[]", "a list"),
        (b"[1]", "a list"),
        (b'"a"', "a text"),
        (b"1", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
        (b"{", "line 1, column 2"),
        (b'{"a":1', "line 1, column 7"),
        (b'{"a":1} x', "Extra data"),
        (b'{"a":1}{"a":1}', "Extra data"),
        (b"{'a':1}", "column 2"),
        (b'{"a":1,}', "column"),
        (b'{"a":01}', "column"),
        (b'{"a":"\n"}', "control character"),
        (b'{"a":"\\x"}', "escape"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":[Infinity]}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e400}', "range of a double"),
        (b'{"a":-1E+309}', "range of a double"),
        (b'{"a":1' + b"0" * 400 + b".0}", "range of a double"),
        (b'{"a":1234567890123456789}', "18 digits"),
        (b'{"a":-1234567890123456789}', "18 digits"),
        (b'{"a":' + b"7" * 5000 + b"}", "18 digits"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":["\\\\\\uDFFF x"]}', "surrogate"),
        (b'{"\\ude00\\ud83d":1}', "surrogate"),
        (b'{"a":"\xff"}', "UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        (b'{"a":"\xc0\xaf"}', "UTF-8"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b'{"n":1,"n":10}', "'n' is there twice"),
        (b'{"n":1,"\\u006e":10}', "'n' is there twice"),
        (b'{"a":[{"size":1,"b":2,"size":1}]}', "'size' is there twice"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "32 levels"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "32 levels"),
        (b"[" * 100_000, "32 levels"),
        (b'{"a":[' * 15_000, "32 levels"),
        (b'{"a":[' + b"1," * (MAX_VALUES + 1) + b"1]}", "too many values"),
        (b'{"a":[' + b"[]," * (2 * MEBIBYTE // 3) + b"1]}", "too many values"),
    ],
)
def test_refuses_everything_else(body: bytes, said: str) -> None:
    assert said in refusal(body).message


def test_a_long_duplicate_key_is_shortened_in_the_message() -> None:
    key = b'"' + b"k" * 5000 + b'":1'
    assert len(refusal(b"{" + key + b"," + key + b"}").message) < 200


HOSTILE = {
    "brackets": b"[" * (2 * MEBIBYTE),
    "lists": b'{"a":[' + b"[]," * (2 * MEBIBYTE // 3) + b"1]}",
    "integers": b'{"a":[' + b"1," * MEBIBYTE + b"1]}",
    "floats": b'{"a":[' + b"1e99," * (MAX_VALUES - 1) + b'"' + b"x" * MEBIBYTE + b'"]}',
    "strings": b'{"a":[' + b'"",' * (2 * MEBIBYTE // 3) + b"1]}",
    "escaped quotes": b'{"a":[' + b'"\\"",' * (2 * MEBIBYTE // 5) + b"1]}",
    "quotes": b'"' * (2 * MEBIBYTE),
    "backslashes": b'{"a":"' + b"\\" * (2 * MEBIBYTE),
    "digits": b'{"a":' + b"1" * (2 * MEBIBYTE) + b"}",
    "digits of a float": b'{"a":' + b"1" * (2 * MEBIBYTE) + b".5}",
    "exponents": b'{"a":' + b"1e" * MEBIBYTE + b"}",
    "same key": b"{" + b'"a":1,' * (2 * MEBIBYTE // 6) + b'"a":1}',
    "objects": b'{"a":[' + b'{"a":1},' * (MAX_VALUES - 1) + b"1]}",
    "surrogates": b'{"a":"' + b"\\ud83d" * (2 * MEBIBYTE // 6) + b'"}',
    "white space": b" " * (2 * MEBIBYTE) + b"{}",
    "late bad byte": b'{"a":"' + b"\xc3\xa9" * MEBIBYTE + b"\xff",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_take_little_time(name: str) -> None:
    spent = []
    for _ in range(3):
        start = time.thread_time()
        outcome(HOSTILE[name])
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.1


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_400(body: bytes) -> None:
    found = outcome(body)
    assert isinstance(found, dict) or found.status == 400


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60)
@given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans())
def test_reads_every_object_as_the_standard_library_does(value: dict[str, Any], escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    assert parse(body) == value


@given(st.text(alphabet='{}[]":,\\u0d8e1.- tfn', max_size=40))
def test_takes_nothing_the_standard_library_refuses(text: str) -> None:
    found = outcome(text.encode())
    assert isinstance(found, GatewayError) or found == json.loads(text)
