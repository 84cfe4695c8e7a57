"""What answers hold: submits and tasks against odd bodies."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.answers import OddCost, Submitted, TaskState, submitted, task_state

SUBMITTED = b'{"status":"submitted","id":"task_01KPQ7J7","progress":0,"created_at":1703884800,"model":"veo"}'
TASK = (
    b'{"id":"task_1","status":"completed","credits_cost":%s,"model":"sora-2","progress":100,'
    b'"result":{"type":"video","data":[{"url":"https://x"}]},"created":1763088289,"completed":1763088308}'
)
BROKEN = [
    b"", b"null", b"[]", b"{", b"<html>", b"{}", b'{"id":null,"status":"x"}', b'{"id":5,"status":"x"}',
    b'{"id":"","status":"x"}', b'{"id":"a b","status":"x"}', b'{"id":"a\\n","status":"x"}',
    b'{"id":"\\u00e4","status":"x"}',
    b'{"id":"' + b"x" * 129 + b'","status":"x"}', b'{"id":"a/../b","status":"x"}', b'{"id":"a","status":"x"} x',
    b'{"id":"a","status":"\xff"}', b'{"id":"a","status":"x","z":' + b"[" * 100_000, b'{"error":{"message":"NaN"}}',
    b'{"id":"a","status":"x","z":NaN', b'{"id":"a b","status":"x","z":NaN}', b'{"z":NaN,"y":' + b"[" * 100_000,
    b'{"id":"a","status":"x","z":NaN,"n":' + b"1" * 5000 + b"}",
]  # fmt: skip


def test_a_submit_is_read() -> None:
    assert submitted(SUBMITTED) == Submitted("task_01KPQ7J7", "submitted", "veo", 0, 1703884800)
    assert submitted(b'{"id":"x"}') == Submitted("x", None, None, None, None)
    odd = b'{"id":"x","status":1,"model":[],"progress":"50","created_at":"now","z":[{}]}'
    assert submitted(odd) == Submitted("x", None, None, None, None)
    assert submitted(b'{"id":"x","progress":50.0,"created_at":1703884800.25}') == Submitted(
        "x", None, None, 50, None
    )


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_not_a_submit_or_a_task(body: bytes) -> None:
    assert submitted(body) is None
    assert task_state(body) is None


def test_a_task_is_read() -> None:
    assert task_state(TASK % b"1.5") == TaskState("task_1", "completed", "sora-2", 100, Decimal("1.5"), True)
    waiting = b'{"id":"t","status":"Processing ","progress":true,"result":null,"extra":{"a":1.5}}'
    assert task_state(waiting) == TaskState("t", "Processing ", None, None, OddCost.MISSING, False)


LONG_WORD = b'"%s"' % (b"x" * 65)


@pytest.mark.parametrize(
    "status", [b"null", b"1", b'""', b'" "', b"[]", rb'"done\u0000"', rb'"done\n"', rb'"a\u009bb"', LONG_WORD]
)
def test_a_task_has_a_status_word(status: bytes) -> None:
    assert task_state(b'{"id":"t","status":' + status + b"}") is None
    found = submitted(b'{"id":"t","status":' + status + b"}")
    assert found is not None
    assert found.status is None


def test_a_status_word_may_have_64_characters() -> None:
    found = task_state(b'{"id":"t","status":"%s"}' % (b"x" * 64))
    assert found is not None
    assert found.status == "x" * 64


@pytest.mark.parametrize(
    ("raw", "cost"),
    [
        ("1.5", Decimal("1.5")),
        ("0", Decimal(0)),
        ("-0", Decimal(0)),
        ("0.1234567", Decimal("0.1234567")),
        ("123456789.123456789", Decimal("123456789.123456789")),
        ('"2.24"', Decimal("2.24")),
        ('" 2.24 "', Decimal("2.24")),
        ("15e-1", Decimal("1.5")),
        ("1000000000", Decimal(10**9)),
        ("1000000001", OddCost.UNREADABLE),
        ("1e99", OddCost.UNREADABLE),
        ("1e999999999", OddCost.UNREADABLE),
        ("9" * 5000, OddCost.UNREADABLE),
        ("null", OddCost.NULL),
        ("-1.5", OddCost.NEGATIVE),
        ('"-0.01"', OddCost.NEGATIVE),
        ("NaN", OddCost.UNREADABLE),
        ("Infinity", OddCost.UNREADABLE),
        ("-Infinity", OddCost.UNREADABLE),
        ('"NaN"', OddCost.UNREADABLE),
        ('""', OddCost.UNREADABLE),
        ('"1,5"', OddCost.UNREADABLE),
        ("true", OddCost.UNREADABLE),
        ("[1.5]", OddCost.UNREADABLE),
        ('{"credits":1.5}', OddCost.UNREADABLE),
    ],
)
def test_costs_are_exact_or_odd(raw: str, cost: Decimal | OddCost) -> None:
    found = task_state(TASK % raw.encode())
    assert found is not None
    assert found.credits_cost == cost
    if isinstance(cost, Decimal):
        assert str(found.credits_cost) == str(cost)


def test_nan_elsewhere_does_not_hide_an_exact_cost() -> None:
    found = task_state(b'{"id":"t","status":"completed","credits_cost":0.1234567890123456789,"score":NaN}')
    assert found is not None
    assert found.credits_cost == Decimal("0.1234567890123456789")


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_every_amount_is_kept_to_the_last_place(amount: Decimal) -> None:
    found = task_state(TASK % str(amount).encode())
    assert found is not None
    assert found.credits_cost == amount


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_none(body: bytes) -> None:
    assert submitted(body) is None
    assert task_state(body) is None
