"""What the doctor says of upstream keys, Pixapi, clocks and prices."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.catalog.price_file import load
from gateway.cli.doctor import pixapi
from gateway.cli.doctor.pixapi import Tried
from gateway.pool.dispatch import Listed
from gateway.pool.upstream_keys import UpstreamKey
from gateway.upstream import outcomes
from gateway.upstream.outcomes import Outcome, Trouble, Verdict
from tests.unit.cli.doctor.facts import SHIPPED, settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = UpstreamKey(
    id=UUID(int=1),
    label="main",
    account="company",
    last4="cdef",
    weight=1,
    max_in_flight=None,
    state="active",
    state_reason=None,
    state_changed_at=NOW,
    paid_rests_until=None,
    reads_rest_until=None,
    rest_reason=None,
    next_check_at=None,
    created_at=NOW,
)
ACCEPTED = Listed(Outcome(Verdict.ANSWERED, status=200), b'{"data":[]}')
GOOD = Tried(KEY, True, ACCEPTED, frozenset({"a", "b"}), NOW, 0.1)


def _answered(verdict: Verdict, status: int) -> Tried:
    return replace(GOOD, listed=Listed(Outcome(verdict, status=status)), models=None)


def _stored(tried: Tried = GOOD, **fields: Any) -> Tried:
    return replace(tried, key=replace(KEY, **fields))


@pytest.mark.parametrize(
    ("tried", "state", "words"),
    [
        (GOOD, "ok", "account company, active: accepted, 2 models"),
        (replace(GOOD, models=frozenset()), "warn", "which models this account may use"),
        (Tried(KEY, opened=False), "fail", "secrets.master_keys"),
        (Tried(replace(KEY, state="disabled", state_reason="by cli:ann")), "warn", "by cli:ann"),
        (Tried(KEY), "ok", "not asked"),
        (Tried(replace(KEY, rest_reason="throttled", paid_rests_until=NOW)), "warn", "throttled"),
        (_answered(Verdict.KEY_REFUSED, 401), "fail", "make a new key"),
        (_answered(Verdict.KEY_EXHAUSTED, 402), "fail", "top the account company up"),
        (_answered(Verdict.THROTTLED, 429), "warn", "429"),
        (replace(GOOD, listed=Listed(outcomes.not_sent("no connection")), models=None), "warn", "no connection"),
        (_stored(state="refused", state_reason="refused"), "warn", "upstream-keys enable main"),
        (_stored(rest_reason="out_of_credits", paid_rests_until=NOW), "warn", "until 12:00:00Z (out_of_credits)"),
        (_stored(state="draining"), "ok", "draining"),
    ],
)  # fmt: skip
def test_one_key(tried: Tried, state: str, words: str) -> None:
    check = pixapi.key(tried)
    assert (check.name, check.state) == ("upstream key main", state)
    assert words in check.found + check.advice


def test_a_pool_without_a_key_to_pay_with_fails() -> None:
    assert [check.state for check in pixapi.keys([GOOD])] == ["ok"]
    (check,) = pixapi.keys([Tried(None, True, ACCEPTED)])
    assert (check.state, "upstream-keys add" in check.advice) == ("fail", True)
    assert pixapi.keys([_stored(state="draining")])[0].found == "there is no active upstream key"


def test_whether_pixapi_answers() -> None:
    lost = replace(GOOD, listed=Listed(outcomes.not_sent("its name was not found")), models=None)
    late = replace(
        GOOD, listed=Listed(outcomes.unknown("no answer", Trouble.BARE, timed_out=True)), models=None
    )
    assert pixapi.reachable([], settings()) == []
    assert pixapi.reachable([Tried(KEY)], settings()) == []
    assert pixapi.reachable([lost, GOOD], settings())[0].state == "ok"
    (check,) = pixapi.reachable([lost], settings(UPSTREAM__PROXY="http://u:hunter2@proxy:3128"))
    assert (check.state, "its name was not found" in check.found) == ("fail", True)
    assert "proxy:3128" in check.advice
    assert "hunter2" not in check.advice
    assert pixapi.reachable([late], settings())[0].state == "fail"


def _dated(seconds: float) -> Tried:
    date = (NOW - timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return replace(GOOD, listed=Listed(Outcome(Verdict.ANSWERED, status=200, date=date), b"{}"))


@pytest.mark.parametrize(
    ("database", "tried", "state", "words"),
    [
        (None, [], "ok", "nobody to compare"),
        ((NOW, NOW + timedelta(seconds=1.9)), [_dated(0)], "ok", "Postgres and Pixapi"),
        ((NOW, NOW + timedelta(seconds=3)), [], "warn", "3.0 s ahead of Postgres"),
        ((NOW, NOW - timedelta(seconds=3)), [], "warn", "3.0 s behind Postgres"),
        (None, [_dated(60)], "warn", "59.5 s ahead of Pixapi"),
        (None, [_dated(-60)], "warn", "60.5 s behind Pixapi"),
        (None, [replace(_dated(60), seconds=5), _dated(0)], "ok", "Pixapi"),
        (None, [replace(GOOD, listed=Listed(Outcome(Verdict.ANSWERED, date="yesterday")))], "ok", "nobody"),
    ],
)
def test_clocks(
    database: tuple[datetime, datetime] | None, tried: list[Tried], state: str, words: str
) -> None:
    check = pixapi.clocks(NOW, database, tried)[0]
    assert check.state == state
    assert words in check.found


def test_prices_and_models_are_compared() -> None:
    book = load(SHIPPED / "models.toml")
    every = replace(GOOD, models=frozenset(book.models))
    assert pixapi.prices(book, [Tried(KEY)], refuse=True)[0].state == "ok"
    assert pixapi.prices(book, [every], refuse=True)[0].state == "ok"
    more = replace(every, models=every.models and every.models | {"new-model"})
    (check,) = pixapi.prices(book, [more], refuse=True)
    assert (check.state, "new-model; calls for them are refused" in check.found) == ("warn", True)
    assert "credits.default_hold" in pixapi.prices(book, [more], refuse=False)[0].found
    gone = pixapi.prices(book, [replace(every, models=frozenset(sorted(book.models)[1:]))], refuse=True)[0]
    assert (gone.state, min(book.models) in gone.found) == ("warn", True)
