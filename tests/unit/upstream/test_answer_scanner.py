"""Images counted in answers: the scanner against the standard library, whole, cut anywhere, and hostile."""

from __future__ import annotations

import base64
import itertools
import json
import os
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.answer_scanner import SMALL, Answer, AnswerScanner, answer_in

NOT_AN_OBJECT = Answer(False, None)


def scan(body: bytes, size: int = 65536) -> Answer:
    """What it is in pieces of that size, or in one."""
    if len(body) <= size:
        return answer_in(body)
    scanner = AnswerScanner()
    for start in range(0, len(body), size):
        scanner.feed(body[start : start + size])
    return scanner.finish()


def expected(body: bytes) -> Answer:
    """The slow way."""
    try:
        value = json.loads(body)
    except ValueError:
        return NOT_AN_OBJECT
    if not isinstance(value, dict):
        return NOT_AN_OBJECT
    data = value.get("data")
    if not isinstance(data, list):
        return Answer(True, None)
    return Answer(True, sum(isinstance(item, dict) and item != {} for item in data))


@pytest.mark.parametrize("size", [1, 2, 7, 65536])
@pytest.mark.parametrize(
    ("body", "images"),
    [
        (b'{"created":1766880000,"data":[{"url":"https://cdn/a.png"},{"b64_json":"aGk="}]}', 2),
        (b' \r\n\t{ "data" : [ { "url" : null } , { } , null , 1 , "x" , [ { "a" : 1 } ] ] } \n', 1),
        (b'{"data":[]}', 0),
        (b"{}", None),
        (b'{"data":{"url":"x"}}', None),
        (b'{"data":null}', None),
        (b'{"result":{"data":[{"url":"x"}]}}', None),
        (b'{"x":["data",[{"a":1}]],"y":{"data":[{"a":1}]},"data":[{"data":[{"a":1},{"b":2}]}]}', 1),
        (b'{"d\\u0061ta":[{"a":1}]}', 1),
        (b'{"data\\u0000":[{"a":1}],"\\"data":[{"a":1}],"DATA":[{"a":1}]}', None),
        (b'{"\xff\\n":1,"\\x":2,"data":[{"a":1}]}', 1),
        (b'{"data":[{"a":1}],"data":7}', None),
        (b'{"data":7,"data":[{"a":1},{"a":1}]}', 2),
        (b'{"data":[{"a":1}],"b":[{"a":1}]}', 1),
        (
            b'{"data":[{"revised_prompt":"a \\"quoted\\" }]{[,: \\\\","url":"https:\\/\\/x"},{"a":"\\\\\\\\"}]}',
            2,
        ),
        (b'{"a":-0.5e+10,"b":true,"c":[1,2.5,false],"data":[{"":0}]}', 1),
        (b'{"' + b"k" * 5000 + b'":1,"data":[{"a":1}]}', 1),
    ],
)
def test_counts_the_images(body: bytes, images: int | None, size: int) -> None:
    assert scan(body, size) == Answer(True, images)


@pytest.mark.parametrize("size", [1, 65536])
@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"1", b'"data"', b"[]", b'[{"data":[{"a":1}]}]', b"\xef\xbb\xbf{}",
        b"<html><body>502 {}</body></html>", b"ok", b"{", b'{"data"', b'{"data":[{"a":1}]', b'{"data":[{"a":1}}',
        b'{"data":[{"a":1}]}}', b'{"data":[]} x', b"{}{}", b"{},", b'{} "', b'{"a":1,}', b'{"a":[1,]}', b'{"a":[,1]}',
        b'{,"a":1}', b'{"a" 1}', b'{"a"::1}', b'{"a":1 2}', b'{"a":1 "b":2}', b'{"a","b"}', b"{a:1}", b'{"a":tru}',
        b'{"a":01}', b'{"a":1.}', b'{"a":+1}', b'{"a":-}', b'{"a":}', b'{"a":"x', b'{"a":"x\\"}', b'{"a":"x\\\\\\"}',
        b'{"a":[}', b'{"a":[1}', b'{"a":{]}', b'{1:2}', b'{"a":1}]', b"}", b"]", b":", b",",
    ],
)  # fmt: skip
def test_anything_else_is_not_an_object(body: bytes, size: int) -> None:
    assert scan(body, size) == NOT_AN_OBJECT


def test_bare_nan_is_not_json() -> None:
    assert scan(b'{"a":NaN}') == NOT_AN_OBJECT


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"1" * 100_000 + b"}",
        b'{"a":[' + b"{}," * 100_000 + b"{}]}",
        b'{"a":' + b"x" * 1_000_000,
    ],
)
def test_hostile_answers_are_given_up(body: bytes) -> None:
    assert scan(body) == NOT_AN_OBJECT


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["data", '"', "\\", '\\"', "{", "]", "a/b", "\\\\"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
ITEMS = st.lists(VALUES | st.dictionaries(TEXT, VALUES, max_size=2), max_size=4)
DOCUMENTS = st.dictionaries(TEXT, VALUES | ITEMS, max_size=4) | st.fixed_dictionaries(
    {"data": ITEMS, "x": VALUES}
)


def fed(body: bytes, cuts: list[int]) -> Answer:
    scanner = AnswerScanner()
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        scanner.feed(body[start:end])
    return scanner.finish()


@settings(max_examples=80, deadline=None)
@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 10_000), max_size=6))
def test_agrees_with_the_standard_library(
    value: dict[str, Any], escaped: bool, indent: int | None, cuts: list[int]
) -> None:
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert fed(body, cuts) == answer_in(body) == expected(body)
    slashes = body.replace(b"/", b"\\/")
    assert fed(slashes, cuts) == answer_in(slashes) == expected(slashes)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=4))
def test_no_proper_prefix_is_whole_and_nothing_may_follow(
    value: dict[str, Any], cut: int, cuts: list[int]
) -> None:
    body = json.dumps(value).encode()
    for broken in (body[: cut % len(body)], body + b"\n{"):
        assert fed(broken, cuts) == answer_in(broken) == NOT_AN_OBJECT


@settings(max_examples=120, deadline=None)
@given(st.text(alphabet='{}[]":,\\ u01e.-truefalsnd', max_size=30), st.lists(st.integers(0, 60), max_size=4))
def test_what_the_standard_library_reads_the_scanner_reads(text: str, cuts: list[int]) -> None:
    body = ('{"data":[' + text + "]}").encode()
    found = expected(body)
    if found.is_object:
        assert fed(body, cuts) == found
    assert fed(body, cuts) == scan(body)


ODD = [
    b'{"data":[', b'{"a":1}', b"]}", b"{}", b",", b":", b'"data"', b'"', b"\\", b"\\u00e9", b"\\ud800", b"\\x", b"\xff",
    b"\x00", b"\n", b" ", b"\xef\xbb\xbf", b"0", b"-", b"1e999", b"1.", b".5", b"-0", b"01", b"1" * 1025,
    b"0." + b"1" * 1023, b"true", b"nul", b"NaN", b"[" * 260, b"]" * 260, b"[" * 250, b"]" * 250, "ä".encode(),
    b'"data":7', b'"data":[{"":0}]',
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    DOCUMENTS | st.none(),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(ODD), st.integers(0, 3)), max_size=8),
)
def test_a_body_that_is_parsed_is_what_it_is_scanned(
    value: dict[str, Any] | None, edits: list[tuple[int, bytes, int]]
) -> None:
    """Parsed at once it may be, but the scanner is the definition, whatever the bytes."""
    body = b"" if value is None else json.dumps(value, ensure_ascii=False).encode()
    for at, piece, taken in edits:
        at %= len(body) + 1
        body = body[:at] + piece + body[at + taken :]
    assert answer_in(body) == fed(body, [])


@pytest.mark.parametrize("size", [SMALL - 100, SMALL, SMALL + 1, 3 * SMALL])
def test_a_body_in_one_piece_may_have_any_size(size: int) -> None:
    picture = b"x" * (size - len(b'{"data":[{"a":""},{}]}'))
    body = b'{"data":[{"a":"' + picture + b'"},{}]}'
    assert len(body) == size
    assert answer_in(body) == Answer(True, 1)
    assert answer_in(body[:-1]) == NOT_AN_OBJECT


def test_base64_is_skipped_fast_and_not_kept() -> None:
    picture = base64.b64encode(os.urandom(3_000_000)).replace(b"/", b"\\/")
    body = b'{"created":1,"data":[' + b",".join([b'{"b64_json":"' + picture + b'"}'] * 8) + b"]}"
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    spent = []
    for _ in range(3):
        scanner = AnswerScanner()
        start = time.thread_time()
        for chunk in chunks:
            scanner.feed(chunk)
        spent.append(time.thread_time() - start)
        assert scanner.finish() == Answer(True, 8)
    assert len(body) / min(spent) > 400e6
    scanner = AnswerScanner()
    tracemalloc.start()
    try:
        for chunk in chunks:
            scanner.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000
