"""What is raised and resolved: every kind by a table, and that nothing flaps by properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alerts.facts import (
    KINDS,
    CostNews,
    Finding,
    KeyHealth,
    OpenAlert,
    OwnFacts,
    QuotaUse,
    Snapshot,
    UnknownHolds,
)
from gateway.alerts.rules import BAND, QUIET, SEEN_EVERY, findings, judge
from gateway.credits.amount import MICRO
from gateway.ids import uuid7

THRESHOLDS = (50, 80, 95, 100)
LONG = QUIET["quota_threshold"] + SEEN_EVERY
START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
QUOTA = QuotaUse(
    id=UUID(int=7),
    team="alpha",
    key_id=None,
    period="month",
    limit=100 * MICRO,
    settled=0,
    held=0,
    enforce=True,
    starts_at=START,
    ends_at=END,
)
KEY = KeyHealth(id=UUID(int=1), label="main", account="acct", state="active")


class Watcher:
    """Snapshots one after the other, as the evaluator sees them."""

    def __init__(self) -> None:
        self.now = START
        self.open: dict[UUID, OpenAlert] = {}
        self.raised: list[Finding] = []

    def see(self, snapshot: Snapshot, seconds: float = 5.0) -> tuple[list[str], list[str]]:
        """The marks that were raised and those that were resolved."""
        self.now += timedelta(seconds=seconds)
        found = findings(replace(snapshot, now=self.now), THRESHOLDS)
        ruling = judge(found, list(self.open.values()), self.now)
        for one in ruling.refreshed:
            alert = next(alert for alert in self.open.values() if alert.identity == one.identity)
            self.open[alert.id] = replace(alert, seen_at=self.now)
        for ident in ruling.seen:
            self.open[ident] = replace(self.open[ident], seen_at=self.now)
        resolved = [self.open.pop(alert) for alert in ruling.resolved]
        for one in ruling.raised:
            alert = OpenAlert(
                id=uuid7(),
                kind=one.kind,
                subject=one.subject,
                mark=one.mark,
                seen_at=self.now,
                limit=one.detail.get("limit"),
                enforce=one.detail.get("enforce"),
            )
            self.open[alert.id] = alert
        self.raised += ruling.raised
        return [_named(one) for one in ruling.raised], [_named(alert) for alert in resolved]

    def use(
        self,
        settled: float,
        held: float = 0.0,
        limit: float = 100.0,
        *,
        after: float = 5.0,
        enforce: bool = True,
    ) -> tuple[list[str], list[str]]:
        micro = [round(amount * MICRO) for amount in (settled, held, limit)]
        quota = replace(QUOTA, settled=micro[0], held=micro[1], limit=micro[2], ends_at=None, enforce=enforce)
        return self.see(Snapshot(now=START, quotas=(quota,)), after)


def _named(one: Finding | OpenAlert) -> str:
    return one.mark.partition("@")[0] if one.kind == "quota_threshold" else one.kind


# Quotas -----------------------------------------------------------------------------------------------------


def test_each_threshold_is_raised_once_as_it_is_crossed() -> None:
    watcher = Watcher()
    steps = [
        (49.9, []),
        (50, ["50"]),
        (79, []),
        (80, ["80"]),
        (80, []),
        (94, []),
        (96, ["95"]),
        (100, ["100"]),
    ]
    for settled, raised in steps:
        assert watcher.use(settled) == (raised, []), settled
    assert watcher.use(130) == ([], [])


def test_what_is_held_counts() -> None:
    watcher = Watcher()
    assert watcher.use(30, held=20) == (["50"], [])
    assert watcher.use(50) == ([], [])


def test_a_released_hold_does_not_resolve_and_a_clear_fall_does() -> None:
    watcher = Watcher()
    assert watcher.use(70, held=10) == (["50", "80"], [])
    for settled, held in ((70, 8), (70, 10), (70, 6), (75, 5)):
        assert watcher.use(settled, held=held) == ([], [])
    watcher.use(75)
    assert watcher.use(74.9) == ([], [])
    assert watcher.use(74.9, after=LONG) == ([], ["80"])
    assert watcher.use(80) == (["80"], []), "crossed again"


def test_holds_that_come_and_go_with_every_call_are_told_of_once() -> None:
    """A limit of 50 and calls that hold 48 and cost 1."""
    watcher, told = Watcher(), []
    for calls in range(40):
        for settled, held in ((calls, 48), (calls + 1, 0)):
            raised, resolved = watcher.use(settled, held, 50, after=300)
            told += raised + resolved
    assert told == ["50", "80", "95", "100"]


def test_changed_between_shadow_and_enforced_it_is_another_matter_unless_reached() -> None:
    watcher = Watcher()
    assert watcher.use(81) == (["50", "80"], [])
    assert watcher.use(81, enforce=False) == ([], [])
    assert watcher.use(79, enforce=False) == ([], ["80"])


def test_a_raised_limit_resolves_and_the_next_crossing_is_told_again() -> None:
    watcher = Watcher()
    assert watcher.use(81) == (["50", "80"], [])
    assert watcher.use(81, limit=105) == ([], ["80"]), "within the band, but the limit was changed"
    assert watcher.use(81, limit=200) == ([], ["50"])
    assert watcher.use(161, limit=200) == (["50", "80"], [])


def test_a_new_period_resolves_and_begins_anew() -> None:
    watcher = Watcher()
    watcher.use(100)
    later = replace(QUOTA, settled=60 * MICRO, starts_at=END, ends_at=None)
    raised, resolved = watcher.see(Snapshot(now=START, quotas=(later,)))
    assert raised == ["50"]
    assert sorted(resolved) == ["100", "50", "80", "95"]
    assert watcher.see(Snapshot(now=START)) == ([], ["50"]), "a removed quota"


@pytest.mark.parametrize(
    ("mark", "enforce", "severity"),
    [(50, True, "info"), (80, True, "warning"), (95, True, "warning"), (100, True, "critical"),
     (50, False, "info"), (100, False, "warning")],
)  # fmt: skip
def test_severity_of_a_threshold(mark: int, enforce: bool, severity: str) -> None:
    quota = replace(QUOTA, settled=100 * MICRO, enforce=enforce, ends_at=None)
    [found] = findings(Snapshot(now=START, quotas=(quota,)), [mark])
    assert found.severity == severity
    assert ("(shadow)" in found.summary) == (not enforce)
    assert found.detail["limit"] == "100"


def test_a_quota_of_nothing_is_closed_on_purpose() -> None:
    assert findings(Snapshot(now=START, quotas=(replace(QUOTA, limit=0),)), THRESHOLDS) == []


def _projected(settled: float, day: float, **changes: object) -> list[Finding]:
    quota = replace(QUOTA, settled=round(settled * MICRO), **changes)  # type: ignore[arg-type]
    at = START + timedelta(days=day)
    return [one for one in findings(Snapshot(now=at, quotas=(quota,)), ()) if one.firm]


def test_an_overrun_is_projected_from_what_is_settled() -> None:
    [found] = _projected(34, 10)
    assert (found.kind, found.severity, found.detail["projected"]) == (
        "quota_projected_overrun", "warning", "102.00",
    )  # fmt: skip
    assert _projected(33, 10) == []
    assert _projected(90, 2.9) == [], "the first tenth says nothing"
    assert [one.kind for one in _projected(90, 3)] == ["quota_projected_overrun"]
    assert _projected(90, 3, ends_at=None) == [], "a total has no end"


def test_a_projection_near_the_limit_does_not_flap() -> None:
    watcher = Watcher()
    seen = []
    for day in range(6, 30):  # 3.4 a day is over, 3.3 within the band
        settled = day * (3.4 if day % 2 else 3.3)
        watcher.now = START + timedelta(days=day)
        quota = replace(QUOTA, settled=round(settled * MICRO))
        raised, resolved = watcher.see(Snapshot(now=START, quotas=(quota,)), 0)
        seen += [name for name in (*raised, *resolved) if name == "quota_projected_overrun"]
    assert seen == ["quota_projected_overrun"]


@settings(deadline=None)
@given(
    uses=st.lists(
        st.tuples(
            st.integers(0, 220),
            st.integers(0, 60),
            st.sampled_from([100, 100, 100, 60, 200]),
            st.sampled_from([5, 70, 500, LONG]),
        ),
        max_size=60,
    )
)
def test_whatever_the_use_no_mark_is_open_twice_or_told_twice_for_one_crossing(
    uses: Sequence[tuple[int, int, int, int]],
) -> None:
    watcher = Watcher()
    above: dict[str, bool] = {}
    near: dict[str, datetime] = {}  # when use was last not clearly below
    at: dict[str, int] = {}  # the limit it was raised at
    for settled, held, limit, after in uses:
        raised, resolved = watcher.use(settled, held, limit, after=after)
        used = settled + held
        for mark in map(str, THRESHOLDS):
            reached, left = used >= limit * int(mark) / 100, used < limit * (int(mark) - BAND) / 100
            assert raised.count(mark) <= 1
            if mark in raised:
                assert reached
                assert not above.get(mark), "told already"
                at[mark] = limit
            near[mark] = watcher.now if not left else near.get(mark, START)
            quiet = (watcher.now - near[mark]).total_seconds()
            if mark in resolved:
                assert above[mark]
                assert not reached
                assert at[mark] != limit or quiet >= QUIET["quota_threshold"]
            above[mark] = (above.get(mark, False) or mark in raised) and mark not in resolved
            assert not reached or above[mark]
            assert not above[mark] or quiet < LONG
            assert not above[mark] or reached or at[mark] == limit
        identities = [alert.identity for alert in watcher.open.values()]
        assert len(identities) == len(set(identities))


# Upstream keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        (KEY, []),
        (replace(KEY, state="refused", state_reason="refused by Pixapi, its model list too"),
         ["upstream_key_off", "upstream_keys_all_resting"]),
        (replace(KEY, state="draining", rest_reason="refused", rests=50),
         ["upstream_key_off", "upstream_keys_all_resting"]),
        (replace(KEY, state="disabled"), ["upstream_keys_all_resting"]),
        (replace(KEY, state="draining"), ["upstream_keys_all_resting"]),
        (replace(KEY, rest_reason="out_of_credits", rests=300),
         ["upstream_key_exhausted", "upstream_keys_all_resting"]),
        (replace(KEY, rest_reason="out_of_credits", rests=0),
         ["upstream_key_exhausted", "upstream_keys_all_resting"]),
        (replace(KEY, rest_reason="refused", rests=60), ["upstream_keys_all_resting"]),
        (replace(KEY, rest_reason="throttled", rests=60), ["upstream_keys_all_resting"]),
        (replace(KEY, rest_reason="throttled", rests=5), []),
        (replace(KEY, rest_reason="failing", rests=300), []),
    ],
)  # fmt: skip
def test_a_key_alone(key: KeyHealth, kinds: list[str]) -> None:
    assert [one.kind for one in findings(Snapshot(now=START, keys=(key,)), ())] == kinds


def test_one_usable_key_is_enough_and_no_keys_at_all_is_no_news() -> None:
    empty = replace(KEY, id=UUID(int=2), label="other", rest_reason="out_of_credits", rests=300)
    assert [one.kind for one in findings(Snapshot(now=START, keys=(KEY, empty)), ())] == [
        "upstream_key_exhausted"
    ]
    assert findings(Snapshot(now=START), ()) == []


def test_a_pool_that_comes_and_goes_is_told_of_once() -> None:
    watcher = Watcher()
    rests = Snapshot(now=START, keys=(replace(KEY, rest_reason="throttled", rests=30),))
    works = Snapshot(now=START, keys=(KEY,))
    assert watcher.see(rests) == (["upstream_keys_all_resting"], [])
    for _ in range(10):
        assert watcher.see(works, 30) == ([], [])
        assert watcher.see(rests, 25) == ([], [])
    assert watcher.see(works, 59) == ([], [])
    assert watcher.see(works, 1) == ([], ["upstream_keys_all_resting"])


# The others -------------------------------------------------------------------------------------------------


def test_unknown_holds_are_one_alert_until_the_last_is_gone() -> None:
    watcher = Watcher()
    for count, expected in ((1, ["hold_unknown"]), (3, []), (2, [])):
        snapshot = Snapshot(now=START, unknown=UnknownHolds(count=count, oldest=START))
        assert watcher.see(snapshot) == (expected, [])
    [found] = findings(Snapshot(now=START, unknown=UnknownHolds(count=1, oldest=START)), ())
    assert found.summary == "1 hold of unknown outcome, the oldest since 2026-11-01T00:00:00+00:00."
    assert watcher.see(Snapshot(now=START)) == ([], ["hold_unknown"])


def test_odd_costs_and_drifts_are_told_once_a_model_and_day() -> None:
    watcher = Watcher()
    drift = CostNews(
        kind="price_drift", model="m", day="2026-11-01", count=1, task_id="t1", cost=3 * MICRO,
        charge=2 * MICRO, quote=2 * MICRO,
    )  # fmt: skip
    odd = CostNews(kind="odd_cost", model="m", day="2026-11-01", count=1, task_id="t2")
    assert watcher.see(Snapshot(now=START, costs=(drift, odd))) == (["price_drift", "odd_cost"], [])
    assert watcher.see(Snapshot(now=START, costs=(replace(drift, count=9), odd))) == ([], [])
    tomorrow = replace(drift, day="2026-11-02")
    assert watcher.see(Snapshot(now=START, costs=(drift, tomorrow))) == (["price_drift"], ["odd_cost"])
    assert watcher.raised[0].summary == "Task t1 of m cost 3 credits; the price book says 2."
    assert watcher.raised[0].detail["quote"] == "2"


@pytest.mark.parametrize(
    ("lag", "stretched", "behind"), [(0, 1.0, False), (30, 1.0, False), (31, 1.0, True), (0, 1.2, True)]
)
def test_the_reconciler_is_behind(lag: float, stretched: float, behind: bool) -> None:
    found = findings(Snapshot(now=START, lag=lag, own=OwnFacts(stretched=stretched)), ())
    assert [one.kind for one in found] == (["reconciler_behind"] if behind else [])


def test_a_month_without_partitions_is_named_while_it_has_none() -> None:
    watcher = Watcher()
    both, one = (Snapshot(now=START, unmade=months) for months in (("2026-11", "2026-12"), ("2026-12",)))
    assert watcher.see(both) == (["partitions_missing"], [])
    assert watcher.raised[-1].summary.startswith("The partitions of 2026-11 and 2026-12 are not made")
    assert watcher.see(one) == ([], [])
    assert watcher.see(Snapshot(now=START)) == ([], ["partitions_missing"])


def test_a_refused_price_book_is_one_alert_and_resolved_after_silence() -> None:
    watcher = Watcher()
    refused = Snapshot(now=START, own=OwnFacts(price_book_problems=("line 3: no", "line 4: no")))
    assert watcher.see(refused) == (["price_book_error"], [])
    assert watcher.see(refused) == ([], [])
    quiet = QUIET["price_book_error"]
    assert watcher.see(Snapshot(now=START), quiet - 1) == ([], [])
    assert watcher.see(Snapshot(now=START), 1) == ([], ["price_book_error"])
    assert "line 3: no (and 1 more)" in watcher.raised[0].summary


def test_every_kind_can_be_raised() -> None:
    snapshot = Snapshot(
        now=START + timedelta(days=15),
        quotas=(replace(QUOTA, settled=90 * MICRO),),
        keys=(
            replace(KEY, state="refused"),
            replace(KEY, id=UUID(int=2), rest_reason="out_of_credits", rests=9),
        ),
        unknown=UnknownHolds(count=2, oldest=START),
        costs=(
            CostNews(kind="price_drift", model="m", day="2026-11-01", count=1, task_id="t"),
            CostNews(kind="odd_cost", model="m", day="2026-11-01", count=1, task_id="t"),
        ),
        lag=99,
        unmade=("2026-12",),
        own=OwnFacts(price_book_problems=("x",)),
    )
    assert {one.kind for one in findings(snapshot, THRESHOLDS) if one.firm} == set(KINDS)
