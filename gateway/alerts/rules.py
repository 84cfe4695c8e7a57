"""What is raised and what is resolved, from a snapshot and what is open. Pure.

`findings` says what is the case, `judge` compares it with what is open. Nothing flaps: what comes and goes must be gone
for a while (`QUIET`), and a quota's alert stays until use has been clearly below its mark for as long, unless its
period has ended or its limit was changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from gateway.alerts.facts import (
    CostNews,
    Finding,
    KeyHealth,
    Kind,
    OpenAlert,
    OwnFacts,
    QuotaUse,
    Severity,
    Snapshot,
    UnknownHolds,
)
from gateway.credits.amount import to_text
from gateway.credits.terms import FIRST_TENTH

BAND = 5  # percentage points below a mark until its alert is resolved
RESTS_LONG = 10.0  # seconds; what rests shorter is back before anybody has read of it
LAG_SECONDS = 30.0
# Seconds for which a reason must be gone until its alert is resolved. Holds come and go with every call, so those of
# quotas are long.
QUIET: Mapping[str, float] = {
    "quota_threshold": 900.0,
    "quota_projected_overrun": 900.0,
    "upstream_keys_all_resting": 60.0,
    "price_book_error": 20.0,
    "reconciler_behind": 60.0,
}
QUOTAS = frozenset({"quota_threshold", "quota_projected_overrun"})
SEEN_EVERY = 60.0  # seconds between two notes that the reason of a quota's alert is still there
# Their wording follows what is the case now; that of others stays as it was raised.
LIVE = frozenset({*QUIET, "hold_unknown", "partitions_missing"}) - QUOTAS
PROBLEMS_SHOWN = 5
OUT_OF_CREDITS, REFUSED, FAILING = "out_of_credits", "refused", "failing"


@dataclass(frozen=True, slots=True)
class Ruling:
    """New alerts, open ones whose reason is still there and worth a note, open ones that are over.

    `seen`: open ones whose reason is still there, to be noted without new words.
    """

    raised: tuple[Finding, ...]
    refreshed: tuple[Finding, ...]
    seen: tuple[UUID, ...]
    resolved: tuple[UUID, ...]


def judge(
    found: Sequence[Finding],
    open_now: Sequence[OpenAlert],
    now: datetime,
    quiet: Mapping[str, float] = QUIET,
) -> Ruling:
    """What follows from `found` being all that is the case at `now`."""
    by_identity = {finding.identity: finding for finding in found}
    known = {alert.identity for alert in open_now}
    firm = [finding for finding in by_identity.values() if finding.firm]
    return Ruling(
        raised=tuple(finding for finding in firm if finding.identity not in known),
        refreshed=tuple(finding for finding in firm if finding.identity in known and finding.kind in LIVE),
        seen=tuple(alert.id for alert in open_now if _seen(alert, by_identity.get(alert.identity), now)),
        resolved=tuple(
            alert.id for alert in open_now if _over(alert, by_identity.get(alert.identity), now, quiet)
        ),
    )


def _seen(alert: OpenAlert, found: Finding | None, now: datetime) -> bool:
    """Whether to note that it is still there: not in every pass, there may be thousands of quotas."""
    there = alert.kind in QUOTAS and found is not None and not found.gone
    return there and (now - alert.seen_at).total_seconds() >= SEEN_EVERY


def _over(alert: OpenAlert, found: Finding | None, now: datetime, quiet: Mapping[str, float]) -> bool:
    silent, wanted = (now - alert.seen_at).total_seconds(), quiet.get(alert.kind, 0.0)
    if alert.kind not in QUOTAS:
        return found is None and silent >= wanted
    if found is None:
        return True  # another period, or no such quota
    if found.firm:
        return False
    changed = alert.limit != found.detail["limit"] or alert.enforce not in (None, found.detail["enforce"])
    # It may have been there until the next note was due.
    return changed or (found.gone and silent >= wanted + SEEN_EVERY)


def findings(snapshot: Snapshot, thresholds: Sequence[int]) -> list[Finding]:
    """Everything that is the case; `thresholds` in percent of a quota's limit."""
    found = [finding for quota in snapshot.quotas for finding in _of_quota(quota, thresholds, snapshot.now)]
    found += _of_keys(snapshot.keys)
    if snapshot.unknown is not None:
        found.append(_unknown(snapshot.unknown))
    found += [_cost(news) for news in snapshot.costs]
    found += _reconciler(snapshot.lag, snapshot.own.stretched)
    found += _partitions(snapshot.unmade)
    return [*found, *of_process(snapshot.own)]


def of_process(own: OwnFacts) -> list[Finding]:
    """What each process says for itself; all processes that refuse the file share one alert."""
    if not own.price_book_problems:
        return []
    first, *more = own.price_book_problems
    others = f" (and {len(more)} more)" if more else ""
    return [
        Finding(
            kind="price_book_error",
            severity="warning",
            subject="models.toml",
            mark="",
            summary=f"models.toml is refused, the prices before it stay in force: {first[:300]}{others}",
            detail={"problems": [problem[:300] for problem in own.price_book_problems[:PROBLEMS_SHOWN]]},
        )
    ]


# Quotas -----------------------------------------------------------------------------------------------------


def _of_quota(quota: QuotaUse, thresholds: Sequence[int], now: datetime) -> Iterator[Finding]:
    if quota.limit == 0:
        return  # closed on purpose
    detail = _quota_detail(quota)
    used = quota.settled + quota.held
    for mark in thresholds:
        yield Finding(
            kind="quota_threshold",
            severity=_threshold_severity(mark, enforced=quota.enforce),
            subject=f"quota:{quota.id}",
            mark=f"{mark}@{quota.starts_at.isoformat()}",
            summary=f"{_owner(quota)} has used {mark} % of its {_named(quota)}: "
            f"{to_text(used)} of {to_text(quota.limit)} credits, {to_text(quota.held)} of them held.",
            detail=detail | {"threshold": mark},
            firm=used * 100 >= quota.limit * mark,
            gone=used * 100 < quota.limit * (mark - BAND),
        )
    yield from _projected(quota, detail, now)


def _projected(quota: QuotaUse, detail: dict[str, Any], now: datetime) -> Iterator[Finding]:
    if quota.ends_at is None:
        return
    length = (quota.ends_at - quota.starts_at).total_seconds()
    elapsed = (now - quota.starts_at).total_seconds()
    if elapsed * FIRST_TENTH < length or elapsed <= 0:
        return
    projected = round(Decimal(quota.settled) * Decimal(length) / Decimal(elapsed))
    yield Finding(
        kind="quota_projected_overrun",
        severity="warning" if quota.enforce else "info",
        subject=f"quota:{quota.id}",
        mark=quota.starts_at.isoformat(),
        summary=f"{_owner(quota)} will pass its {_named(quota)} of {to_text(quota.limit)} credits if it goes on like "
        f"this: {to_text(quota.settled)} settled so far make {_rounded(projected)} by the end.",
        detail=detail | {"projected": _rounded(projected)},
        firm=projected > quota.limit,
        gone=projected * 100 <= quota.limit * (100 - BAND),
    )


def _threshold_severity(mark: int, *, enforced: bool) -> Severity:
    if mark < 80:
        return "info"
    return "critical" if mark >= 100 and enforced else "warning"


def _quota_detail(quota: QuotaUse) -> dict[str, Any]:
    return {
        "team": quota.team,
        "key": quota.key_id,
        "period": quota.period,
        "limit": to_text(quota.limit),
        "settled": to_text(quota.settled),
        "held": to_text(quota.held),
        "enforce": quota.enforce,
        "resets_at": None if quota.ends_at is None else quota.ends_at.isoformat(),
    }


def _owner(quota: QuotaUse) -> str:
    return f"Team {quota.team}" if quota.key_id is None else f"Key {quota.key_id} of team {quota.team}"


def _named(quota: QuotaUse) -> str:
    return f"{quota.period} quota{'' if quota.enforce else ' (shadow)'}"


def _rounded(micro: int) -> str:
    return f"{Decimal(micro).scaleb(-6):.2f}"


# Upstream keys ----------------------------------------------------------------------------------------------


def _of_keys(keys: Sequence[KeyHealth]) -> Iterator[Finding]:
    for key in keys:
        if key.state == "refused" or (key.state == "draining" and key.rest_reason == REFUSED):
            reason = key.state_reason or "refused by Pixapi"
            yield _of_key(key, "upstream_key_off", f"The upstream key {key.label} is off: {reason}.", reason)
        elif key.state == "active" and key.rest_reason == OUT_OF_CREDITS:
            text = f"The Pixapi account {key.account} of the upstream key {key.label} is out of credits."
            yield _of_key(key, "upstream_key_exhausted", text, OUT_OF_CREDITS)
    if keys and not any(map(_usable, keys)):
        reasons = {key.label: _why(key) for key in keys}
        listed = ", ".join(f"{label} ({reason})" for label, reason in list(reasons.items())[:10])
        yield Finding(
            kind="upstream_keys_all_resting",
            severity="critical",
            subject="pool",
            mark="",
            summary=f"No upstream key can take a paid call: {listed}.",
            detail={"keys": reasons},
        )


def _of_key(key: KeyHealth, kind: Kind, summary: str, reason: str) -> Finding:
    return Finding(
        kind=kind,
        severity="warning",
        subject=f"upstream-key:{key.id}",
        mark="",
        summary=summary,
        detail={"label": key.label, "account": key.account, "reason": reason},
    )


def _usable(key: KeyHealth) -> bool:
    """Whether it takes paid calls, now or in a moment. While all others are off, failing keys do."""
    if key.state != "active" or key.rest_reason in (OUT_OF_CREDITS, REFUSED):
        return False
    return key.rest_reason == FAILING or key.rests <= RESTS_LONG


def _why(key: KeyHealth) -> str:
    return key.state if key.state != "active" else key.rest_reason or "rests"


# Holds, costs, tasks ----------------------------------------------------------------------------------------


def _unknown(unknown: UnknownHolds) -> Finding:
    many = unknown.count != 1
    return Finding(
        kind="hold_unknown",
        severity="warning",
        subject="holds",
        mark="",
        summary=f"{unknown.count} hold{'s' if many else ''} of unknown outcome, the oldest since "
        f"{unknown.oldest.isoformat(timespec='seconds')}.",
        detail={"count": unknown.count, "oldest": unknown.oldest.isoformat()},
    )


def _cost(news: CostNews) -> Finding:
    if news.kind == "odd_cost":
        what = f"Pixapi stated no usable cost for task {news.task_id} of {news.model}; it was settled at its quote."
    else:
        cost, charge = to_text(news.cost or 0), to_text(news.charge or 0)
        what = f"Task {news.task_id} of {news.model} cost {cost} credits; the price book says {charge}."
    amounts = {"cost": news.cost, "price": news.charge, "quote": news.quote}
    return Finding(
        kind=news.kind,
        severity="warning",
        subject=f"model:{news.model}",
        mark=news.day,
        summary=what,
        detail={
            "model": news.model,
            "day": news.day,
            "task_id": news.task_id,
            "count": news.count,
            **{name: to_text(amount) for name, amount in amounts.items() if amount is not None},
        },
    )


def _reconciler(lag: float, stretched: float) -> Iterator[Finding]:
    if lag <= LAG_SECONDS and stretched <= 1:
        return
    yield Finding(
        kind="reconciler_behind",
        severity="warning",
        subject="tasks",
        mark="",
        summary=f"Ended tasks settle late: the longest due has waited {lag:.0f} s, reads are {stretched:.1f} times as "
        "rare as promised.",
        detail={"lag_seconds": round(lag, 1), "stretched": round(stretched, 2)},
    )


def _partitions(unmade: Sequence[str]) -> Iterator[Finding]:
    """They are made months ahead: when one of these is missing, gateways have failed to make it for weeks."""
    if unmade:
        yield Finding(
            kind="partitions_missing",
            severity="warning",
            subject="months",
            mark="",
            summary=f"The partitions of {' and '.join(unmade)} are not made; what belongs there is kept in the default "
            "partitions. The log says why.",
            detail={"months": list(unmade)},
        )
