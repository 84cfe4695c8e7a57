"""/gateway/account, /gateway/usage and /gateway/tasks: what a team key may know about itself and its team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Limits, Principal
from gateway.clock import Clock
from gateway.credits import standing, usage
from gateway.credits.amount import to_decimal
from gateway.credits.standing import Standing
from gateway.db.engine import Database
from gateway.db.paging import DEFAULT_LIMIT, LARGEST_LIMIT, PageOf, checked_cursor
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply
from gateway.tasks.listing import ListedTask, TaskFilter, page

JSON = (b"content-type", b"application/json")
_ENCODER = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Account:
    """Team, key, allowed models, limits and quotas of the calling key."""

    database: Database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = exchange_of(scope).principal
        if principal is None:
            raise errors.internal_error()
        async with self.database.autocommit() as connection:
            quotas = await standing.of_key(connection, principal.team_id, principal.key_id)
        document = {
            "team": {"id": principal.team_id, "slug": principal.team_slug, "name": principal.team_name},
            "key": {"id": principal.key_id, "name": principal.key_name, "expires_at": principal.expires_at},
            "allowed_models": allowed_models(principal),
            "limits": {"team": _limits(principal.team_limits), "key": _limits(principal.key_limits)},
            "quotas": [_quota(quota) for quota in quotas],
        }
        await reply(send, 200, [JSON], _ENCODER.encode(document))


@dataclass(frozen=True, slots=True)
class OwnUsage:
    """The team's usage, with `from`, `to` and `by` as in the admin API; by default of this month, by model.

    The month is that of the team's zone.
    """

    database: Database
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = exchange_of(scope).principal
        if principal is None:
            raise errors.internal_error()
        query = QueryParams(scope["query_string"])
        start, end, by = _usage_query(query)
        which = usage.range_of(start, end, self.clock.now(), principal.time_zone)
        async with self.database.autocommit() as connection:
            found = await usage.statement(connection, which, by, principal.team_id)
        await reply(send, 200, [JSON], _ENCODER.encode(usage.document(found)))


@dataclass(frozen=True, slots=True)
class OwnTasks:
    """The team's tasks, newest first: `{data, has_more, next}`, with `limit` and `after` as in the admin API."""

    database: Database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = exchange_of(scope).principal
        if principal is None:
            raise errors.internal_error()
        which = _page_of(QueryParams(scope["query_string"]))
        async with self.database.autocommit() as connection:
            found = await page(connection, TaskFilter(team_id=principal.team_id), which)
        document = {
            "data": [_task(task) for task in found.items],
            "has_more": found.next is not None,
            "next": found.next,
        }
        await reply(send, 200, [JSON], _ENCODER.encode(document))


def _usage_query(
    query: QueryParams,
) -> tuple[usage.Bound | None, usage.Bound | None, tuple[usage.Dimension, ...]]:
    """`from`, `to` and `by`; raises 400 naming every one that is wrong."""
    problems = [f"{name[:60]!a}: unknown" for name in sorted(set(query) - {"from", "to", "by"})]
    problems += [f"{name}: given twice" for name in query if len(query.getlist(name)) > 1]
    found: dict[str, Any] = {"from": None, "to": None, "by": ("model",)}
    readers: dict[str, Callable[[str], Any]] = {
        "from": usage.bound,
        "to": usage.bound,
        "by": usage.dimensions,
    }
    for name, read in readers.items():
        try:
            found[name] = read(query[name][:200]) if name in query else found[name]
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise errors.bad_request("; ".join(dict.fromkeys(problems)), "invalid_fields")
    return found["from"], found["to"], found["by"]


def _page_of(query: QueryParams) -> PageOf:
    """`limit` and `after`; raises 400 naming every one that is wrong."""
    problems = [f"{name[:60]!a}: unknown" for name in sorted(set(query) - {"limit", "after"})]
    problems += [f"{name}: given twice" for name in ("limit", "after") if len(query.getlist(name)) > 1]
    limit, after = query.get("limit", str(DEFAULT_LIMIT)), query.get("after")
    number = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 5 else 0
    if not 1 <= number <= LARGEST_LIMIT:
        problems.append(f"limit: must be a whole number from 1 to {LARGEST_LIMIT}")
    try:
        after = None if after is None else checked_cursor(after)
    except ValueError as error:
        problems.append(f"after: {error}")
    if problems:
        raise errors.bad_request("; ".join(problems), "invalid_fields")
    return PageOf(number, after)


def _quota(quota: Standing) -> dict[str, object]:
    return {
        "scope": quota.scope,
        "period": quota.period,
        "limit": to_decimal(quota.limit),
        "settled": to_decimal(quota.settled),
        "held": to_decimal(quota.held),
        "remaining": to_decimal(quota.remaining),
        "resets_at": quota.resets_at,
        "enforce": quota.enforce,
    }


def _task(task: ListedTask) -> dict[str, object]:
    """What a team may see of its task: nothing of the upstream key."""
    return {
        "id": task.id,
        "key_id": task.key_id,
        "model": task.model,
        "operation": task.operation,
        "status": task.status,
        "credits_cost": None if task.credits_cost is None else to_decimal(task.credits_cost),
        "created_at": task.created_at,
        "ended_at": task.ended_at,
    }


def allowed_models(principal: Principal) -> list[str] | None:
    """The models both team and key allow; None when neither restricts them."""
    lists = [models for models in (principal.team_models, principal.key_models) if models is not None]
    return sorted(frozenset.intersection(*lists)) if lists else None


def _limits(limits: Limits) -> dict[str, int | None]:
    return {"requests_per_minute": limits.requests_per_minute, "max_in_flight": limits.max_in_flight}
