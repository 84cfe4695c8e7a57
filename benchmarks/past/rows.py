"""The rows: everything that was invented, written with COPY in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from benchmarks.past.calls import Call, Task
from benchmarks.past.cast import Cast, Key, PoolKey, Quota, Team
from benchmarks.past.standing import Counter, Period, Periods
from gateway.credits.amount import to_decimal
from gateway.pool.vault import Vault

Rows = Iterable[Sequence[object]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def copy(connection: psycopg.Connection[Any], table: str, columns: str, rows: Rows) -> int:
    """Writes rows with these columns, as text; how many."""
    names = sql.SQL(", ").join(sql.Identifier(name) for name in columns.split())
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    number = 0
    with connection.cursor() as cursor, cursor.copy(statement) as writing:
        for row in rows:
            writing.write_row([_array(value) if isinstance(value, (list, tuple)) else value for value in row])
            number += 1
    return number


def periods(connection: psycopg.Connection[Any], teams: Sequence[Team], start: datetime) -> Periods:
    """Every period of the quotas' kinds and the teams' zones from `start` to now, as the ledger cuts them."""
    kinds = sorted({(quota.plan.period, team.plan.zone) for team in teams for quota in team.quotas})
    found: dict[tuple[str, str], list[Period]] = {pair: [] for pair in kinds}
    query = """
        SELECT DISTINCT k.kind, k.zone, p.starts_at, p.ends_at
        FROM unnest(%s::text[], %s::text[]) AS k(kind, zone)
        CROSS JOIN LATERAL generate_series(%s::timestamptz, now() + interval '12 hours', '12 hours') AS a(at)
        CROSS JOIN LATERAL gateway_period(k.kind, k.zone, least(a.at, now())) p
        ORDER BY p.starts_at
    """
    for kind, zone, starts, ends in connection.execute(query, [*map(list, zip(*kinds, strict=True)), start]):
        found[kind, zone].append(Period(starts, ends))
    return found


def write_cast(connection: psycopg.Connection[Any], cast: Cast, vault: Vault | None) -> None:
    """Teams, keys, quotas and the pool. Without a vault upstream keys have no secret."""
    copy(
        connection,
        "teams",
        "id slug name time_zone cost_center unlimited suspended_at created_at",
        (
            (
                team.id,
                team.slug,
                team.plan.name,
                team.plan.zone,
                team.plan.cost_center,
                team.plan.unlimited,
                team.suspended_at,
                team.created_at,
            )
            for team in cast.teams
        ),
    )
    copy(
        connection,
        "team_keys",
        "id team_id name digest last4 allowed_models allowed_addresses requests_per_minute max_in_flight replaced_by "
        "expires_at revoked_at last_used_at created_at quota_key_id",
        (_key(team, key) for team in cast.teams for key in team.keys),
    )
    copy(
        connection,
        "quotas",
        "id team_id key_id period limit_micro enforce updated_at created_at",
        (_quota(team, quota) for team in cast.teams for quota in team.quotas),
    )
    copy(
        connection,
        "upstream_keys",
        "id label account secret fingerprint last4 weight max_in_flight state state_reason state_changed_at created_at",
        (_pool_key(key, vault) for key in cast.pool),
    )


def write_counters(connection: psycopg.Connection[Any], every: Sequence[Counter], now: datetime) -> None:
    """The counters with what they have now; from here on they have their ids, and the calls know them."""
    for counter in every:
        settled, held = counter.standing(now)
        row = connection.execute(
            "INSERT INTO quota_periods (quota_id, starts_at, ends_at, settled, held) VALUES (%s, %s, %s, %s, %s) "
            "RETURNING id",
            [counter.quota.id, counter.period.starts_at, counter.period.ends_at, settled, held],
        ).fetchone()
        counter.id = 0 if row is None else row[0]
        for move in counter.moves:
            if move.placed is not None:
                move.placed.counters.append(counter.id)


def write_calls(
    connection: psycopg.Connection[Any], calls: Sequence[Call], now: datetime, told: Callable[[str], None]
) -> None:
    """The calls as the verbs of the ledger would have left them."""
    told(f"{len(calls)} holds")
    copy(
        connection,
        "holds",
        "id team_id key_id request_id operation model state quote settled estimated flags reason counters task_id "
        "upstream_key_id placed_at ended_at unknown_at",
        map(_hold, calls),
    )
    entries = "hold_id kind team_id key_id counters held settled actor reason made_at"
    copy(connection, "ledger_entries", entries, (row for call in calls for row in _entries(call)))
    attempts = "hold_id number upstream_key_id outcome status milliseconds started_at"
    copy(connection, "attempts", attempts, (row for call in calls for row in _attempts(call)))
    told("usage and tasks")
    usage = "starts_at team_id key_id model operation day requests failed shadow_refused credits estimated_credits"
    copy(connection, "usage_buckets", usage, _usage(calls))
    copy(
        connection,
        "tasks",
        "id team_id key_id hold_id upstream_key_id model operation status body credits_cost charge quote ended_at "
        "read_at seen_at reads next_read_at created_at",
        (_task(call, call.task, now) for call in calls if call.task is not None),
    )


def _array(values: Sequence[object]) -> str:
    return "{" + ",".join(json.dumps(str(value), ensure_ascii=False) for value in values) + "}"


def _key(team: Team, key: Key) -> Sequence[object]:
    plan = key.plan
    return (
        key.id,
        team.id,
        plan.name,
        key.digest,
        key.last4,
        plan.models,
        plan.addresses,
        plan.requests_per_minute,
        plan.max_in_flight,
        key.replaced_by,
        key.expires_at,
        key.revoked_at,
        key.last_used_at,
        key.created_at,
        key.line,
    )


def _quota(team: Team, quota: Quota) -> Sequence[object]:
    plan, made = quota.plan, quota.created_at
    return (
        quota.id,
        team.id,
        quota.line,
        plan.period,
        quota.limit,
        plan.enforce,
        quota.updated_at or made,
        made,
    )


def _pool_key(key: PoolKey, vault: Vault | None) -> Sequence[object]:
    sealed = b"" if vault is None else vault.seal(key.id, key.secret)
    finger = key.id.bytes if vault is None else vault.fingerprint(key.secret)
    state = "active" if key.drains_at is None else "draining"
    changed = key.drains_at or key.created_at
    plan = key.plan
    return (
        key.id,
        key.label,
        plan.account,
        sealed,
        finger,
        key.secret[-4:],
        plan.weight,
        plan.max_in_flight,
        state,
        key.state_reason,
        changed,
        key.created_at,
    )


def _hold(call: Call) -> Sequence[object]:
    return (
        call.id,
        call.team.id,
        call.key.id,
        call.request_id,
        call.wish.operation,
        call.wish.model,
        call.state,
        call.quote,
        call.settled,
        call.estimated,
        call.flags,
        call.reason,
        call.counters,
        None if call.task is None else call.task.id,
        call.pool_key,
        call.placed_at,
        call.ended_at,
        call.unknown_at,
    )


def _entries(call: Call) -> Iterator[Sequence[object]]:
    whose = (call.team.id, call.key.id, call.counters)
    yield call.id, "place", *whose, call.quote, 0, None, None, call.placed_at
    said = (call.actor, call.reason, call.ended_at)
    if call.settled is not None:
        yield call.id, "settle", *whose, -call.quote, min(call.settled, call.quote), *said
        if call.settled > call.quote:
            yield call.id, "overrun", *whose, 0, call.settled - call.quote, *said
    elif call.state == "released":
        yield call.id, "release", *whose, -call.quote, 0, *said


def _attempts(call: Call) -> Iterator[Sequence[object]]:
    for number, send in enumerate(call.sends, start=1):
        yield call.id, number, send.key, send.outcome, send.status, send.milliseconds, call.sent_at


def _usage(calls: Iterable[Call]) -> Iterator[Sequence[object]]:
    """By the quarter of an hour in which each hold was placed; the day is the team's own."""
    sums: dict[tuple[datetime, UUID, str, str, str], list[int]] = {}
    days: dict[tuple[datetime, UUID, str, str, str], object] = {}
    for call in calls:
        quarter = EPOCH + (call.placed_at - EPOCH) // timedelta(minutes=15) * timedelta(minutes=15)
        bucket = (quarter, call.team.id, call.key.id, call.wish.model, call.wish.operation)
        days.setdefault(bucket, call.placed_at.astimezone(ZoneInfo(call.team.plan.zone)).date())
        settled = call.settled or 0
        added = (
            1,
            call.state in ("released", "unknown"),
            "shadow_refused" in call.flags,
            settled,
            settled if call.estimated else 0,
        )
        before = sums.setdefault(bucket, [0] * len(added))
        sums[bucket] = [old + new for old, new in zip(before, added, strict=True)]
    return ((*bucket, days[bucket], *sums[bucket]) for bucket in sorted(sums))


def _task(call: Call, task: Task, now: datetime) -> Sequence[object]:
    age = (now - task.accepted_at).total_seconds()
    read = task.ended_at or now - timedelta(seconds=min(1.5, age))
    reads = max(1, round((read - task.accepted_at).total_seconds() / 12))
    return (
        task.id,
        call.team.id,
        call.key.id,
        call.id,
        call.pool_key,
        call.wish.model,
        call.wish.operation,
        task.status,
        _body(call, task, age),
        task.cost,
        call.price.credits,
        call.price.hold,
        task.ended_at,
        None if task.status == "submitted" else read,
        read,
        reads,
        (task.ended_at or now) + timedelta(seconds=8),
        task.accepted_at,
    )


def _body(call: Call, task: Task, age: float) -> bytes:
    """The task as Pixapi's API would tell of it."""
    created = int(task.accepted_at.timestamp())
    body: dict[str, object] = {"id": task.id, "status": task.status, "model": call.wish.model}
    if task.ended_at is None:
        done = 0 if task.status == "submitted" else min(95, int(100 * age / task.seconds))
        return json.dumps(body | {"progress": done, "created": created}).encode()
    body |= {"progress": 100, "credits_cost": None if task.cost is None else float(to_decimal(task.cost))}
    if task.status == "failed":
        code = "content_policy_violation"
        body["error"] = {"code": code, "message": f"The task failed: {code}."}
    else:
        kind, ending = ("video", "mp4") if call.seconds is not None else ("image", "png")
        links = [{"url": f"https://files.example.com/{task.id}-{n}.{ending}"} for n in range(call.images)]
        body["result"] = {"type": kind, "data": links}
    return json.dumps(body | {"created": created, "completed": int(task.ended_at.timestamp())}).encode()
