"""Usage by its dimensions, ranges and days, and what a team key sees of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.clock import SystemClock
from gateway.credits import usage
from gateway.credits.quotas import Owner
from gateway.credits.terms import Conclusion
from gateway.credits.usage import Dimension, Range, Statement
from gateway.endpoints.account import Account, OwnUsage
from gateway.errors import GatewayError
from gateway.proxy.exchange import Exchange, begin
from tests.fakes.principals import principal
from tests.integration.credits.conftest import Books

MARCH = Range(start=datetime(2026, 3, 1, tzinfo=UTC), end=datetime(2026, 4, 1, tzinfo=UTC))


async def _used(books: Books, team: object, at: str, micro: int = 1_000_000, **more: Any) -> None:
    """One call, settled in the quarter of an hour that begins at this instant; its day is that of the zone."""
    values = {"key": "k", "model": "m", "operation": "o", "zone": "UTC"} | more
    await books.execute(
        "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, credits)"
        " VALUES (CAST(:at AS timestamptz), :team, :key, :model, :operation,"
        " (CAST(:at AS timestamptz) AT TIME ZONE :zone)::date, 1, :micro)",
        at=at,
        team=team,
        micro=micro,
        **values,
    )


async def _statement(books: Books, which: Range, *by: Dimension, **more: Any) -> Statement:
    async with books.database.autocommit() as connection:
        return await usage.statement(connection, which, by, **more)


async def test_rows_have_the_dimensions_asked_for_and_sum_exactly(books: Books) -> None:
    team = await books.team("One")
    key, other = await books.key(team), await books.key(team)
    await books.quota(Owner(team), 0, "total", enforce=False)
    for number in range(10):
        hold = await books.place(team, key if number % 2 else other, 1, model=f"model-{number % 3}")
        await books.end(hold, Conclusion(state="settled", settled=100_000, estimated=number == 0))
    await books.end(await books.place(team, key, 1), Conclusion(state="released"))
    await books.end(await books.place(team, key, 1), Conclusion(state="unknown"))
    which = usage.range_of(None, None, SystemClock().now())
    found = await _statement(books, which, "key", "model")
    assert {row.names["key"] for row in found.rows} == {key, other}
    assert all(set(row.names) == {"key", "model"} for row in found.rows)
    totals = found.totals
    assert (totals.requests, totals.failed, totals.credits) == (12, 2, 1_000_000)
    assert (totals.estimated_credits, totals.shadow_refused) == (100_000, 12)
    for by in usage.DIMENSIONS:
        assert (await _statement(books, which, by)).totals == totals
    [row] = (await _statement(books, which, "team")).rows
    assert row.names == {"team": "one", "team_id": team}


async def test_from_is_in_and_to_is_out(books: Books) -> None:
    team = await books.team()
    for at in ("2026-02-28T23:45Z", "2026-03-01T00:00Z", "2026-03-31T23:45Z", "2026-04-01T00:00Z"):
        await _used(books, team, at)
    assert (await _statement(books, MARCH, "team")).totals.requests == 2
    first = Range(start=MARCH.start, end=datetime(2026, 3, 1, 0, 15, tzinfo=UTC))
    assert (await _statement(books, first, "team")).totals.requests == 1


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"]
)
async def test_a_bare_date_is_the_team_s_own_day(books: Books, zone: str) -> None:
    team = await books.team(time_zone=zone)
    edges = await books.execute(
        "SELECT (timestamp '2026-03-08' AT TIME ZONE :zone)::text AS a,"
        " (timestamp '2026-03-09' AT TIME ZONE :zone - interval '15 minutes')::text AS b,"
        " (timestamp '2026-03-09' AT TIME ZONE :zone)::text AS c,"
        " (timestamp '2026-03-08' AT TIME ZONE :zone - interval '15 minutes')::text AS d",
        zone=zone,
    )
    for at in (edges[0].a, edges[0].b, edges[0].c, edges[0].d):
        await _used(books, team, at, zone=zone)
    days = Range(start=date(2026, 3, 8), end=date(2026, 3, 9))
    [row] = (await _statement(books, days, "day")).rows
    assert (row.names["day"], row.sums.requests) == (date(2026, 3, 8), 2)


async def test_a_team_gets_its_own_and_too_many_rows_are_refused(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, other = await books.team("One"), await books.team("Other")
    for owner in (team, other):
        for model in ("a", "b"):
            await _used(books, owner, "2026-03-05T00:00Z", model=model)
    assert len((await _statement(books, MARCH, "team")).rows) == 2
    assert (await _statement(books, MARCH, "model", team_id=team)).totals.requests == 2
    monkeypatch.setattr(usage, "MOST_ROWS", 3)
    with pytest.raises(GatewayError, match="shorter range"):
        await _statement(books, MARCH, "team", "model")


async def test_a_key_asks_for_its_quotas_and_its_team_s_usage(books: Books) -> None:
    team, other = await books.team("One", time_zone="Asia/Tokyo"), await books.team("Other")
    key = await books.key(team)
    await books.quota(Owner(team), 10.5)
    await books.quota(Owner(team, key), 4, "total", enforce=False)
    await books.settle(await books.place(team, key, 3), 2)
    await books.place(team, key, 1, model="another")
    await _used(books, other, datetime.now(UTC).replace(minute=0, second=0).isoformat())
    successor = await books.rotated(key)
    async with _client(books, team_id=team, key_id=successor) as client:
        shared = (await client.get("/gateway/account")).json()["quotas"]
    async with _client(books, team_id=team, key_id=key, time_zone="Asia/Tokyo") as client:
        answer = (await client.get("/gateway/account")).json()
        assert answer["quotas"] == shared
        resets = answer["quotas"][0].pop("resets_at")
        assert answer["quotas"] == [
            {"scope": "team", "period": "month", "limit": 10.5, "settled": 2, "held": 1, "remaining": 7.5,
             "enforce": True},
            {"scope": "key", "period": "total", "limit": 4, "settled": 2, "held": 1, "remaining": 1,
             "resets_at": None, "enforce": False},
        ]  # fmt: skip
        assert datetime.fromisoformat(resets).strftime("%d %H:%M %Z") in ("30 15:00 UTC", "31 15:00 UTC",
                                                                         "28 15:00 UTC", "29 15:00 UTC")  # fmt: skip
        used = (await client.get("/gateway/usage")).json()
        assert used["by"] == ["model"]
        assert [(row["model"], row["requests"], row["credits"]) for row in used["data"]] == [
            ("a-model", 1, 2),
            ("another", 1, 0),
        ]
        assert used["totals"]["credits"] == 2
        by_key = (await client.get("/gateway/usage?by=team,key&from=2026-01-01&to=2100-01-01")).json()
        assert [(row["team"], row["key"], row["requests"]) for row in by_key["data"]] == [("one", key, 2)]
        assert (by_key["from"], by_key["to"]) == ("2026-01-01", "2100-01-01")
        wrong = (await client.get("/gateway/usage?from=now&by=cost&team=other&to=2026-01-01&to=x")).json()
        message = wrong["error"]["message"]
        assert wrong["error"]["reason"] == "invalid_fields"
        for part in (
            "from: must be a date",
            "by: must be one or several",
            "'team': unknown",
            "to: given twice",
        ):
            assert part in message


def _client(books: Books, **who: Any) -> httpx.AsyncClient:
    account, own = Account(books.database), OwnUsage(books.database, SystemClock())
    routes = [Route("/gateway/account", account), Route("/gateway/usage", own)]
    app = Starlette(routes=routes, exception_handlers={GatewayError: _render})

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        found = principal(**who)
        begin(scope, Exchange(request_id="r", started=0, client=None, headers=(), principal=found))
        await app(scope, receive, send)

    transport = httpx.ASGITransport(_asgi(known))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def _asgi(app: ASGIApp) -> Any:
    return app


async def _render(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return Response(errors.render(error, "r")[1], error.status)
