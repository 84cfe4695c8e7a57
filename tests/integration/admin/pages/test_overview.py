"""The first page: what it shows, to whom, and how little it asks."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.plans import recorded
from tests.integration.admin.pages.conftest import Dashboard

MOST_STATEMENTS = 10
_NUMBERS = itertools.count()


@pytest.mark.parametrize("by", ["team", "model", "key"])
async def test_it_makes_few_statements(dashboard: Dashboard, by: str) -> None:
    await spent(dashboard)
    with recorded(dashboard.site.runtime.admin_database) as statements:
        text = await dashboard.page("/", by=by)
    assert "Spend over time" in text
    assert len(statements) <= MOST_STATEMENTS, statements


async def test_it_shows_what_was_spent_and_is_left(dashboard: Dashboard) -> None:
    slug = await spent(dashboard)
    text = await dashboard.page("/")
    assert f"{slug} 8.00" in text
    assert "8.00 of 1,000.00 credits" in text
    assert "Needs a person" not in text


@pytest.mark.parametrize(
    "query",
    [
        {"range": "nonsense", "by": "<script>", "cumulative": "x"},
        {"from": "2026-01-01", "to": "2025-01-01"},
        {"from": "0001-01-01", "to": "9999-12-31"},
        {"range": "90d", "by": "key", "cumulative": "1"},
        {"done": "<b>made up</b>"},
    ],
)
async def test_an_odd_address_is_a_page_all_the_same(dashboard: Dashboard, query: dict[str, str]) -> None:
    source = await dashboard.source("/", 200, **query)
    assert "<script>" not in source.replace("<script src=", "")
    assert "<b>made up" not in source


async def test_nobody_sees_it_signed_out(dashboard: Dashboard) -> None:
    stranger = dashboard.site.browser("192.0.2.9")
    for path in ("/admin/", "/admin/teams", "/admin/teams/demo?range=7d"):
        answer = await stranger.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/admin/login")
    refused = await stranger.post("/admin/teams/new", data={"name": "x", "kind": "unlimited"})
    assert (refused.status_code, refused.headers["location"]) == (303, "/admin/login?next=/admin/teams/new")


async def test_its_headers_let_nothing_run_but_our_own(dashboard: Dashboard) -> None:
    answer = await dashboard.viewer.get("/admin/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert " style=" not in answer.text
    assert " onclick" not in answer.text


async def spent(dashboard: Dashboard) -> str:
    """The slug of a new team that has spent 8 credits now."""
    team = await dashboard.api(
        "POST", "/teams", {"name": f"Spender {next(_NUMBERS)}", "quota": {"period": "month", "limit": 1000}}
    )
    key = await dashboard.api("POST", f"/teams/{team['id']}/keys", {"name": "k"})
    await dashboard.site.sql(
        "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, credits)"
        " VALUES (date_bin('15 minutes', now(), '2000-01-01'), %(team)s, %(key)s, 'm', 'images.generations',"
        " (now() AT TIME ZONE 'UTC')::date, 1, 8000000)",
        team=team["id"],
        key=key["id"],
    )
    await dashboard.site.sql(
        "INSERT INTO quota_periods (quota_id, starts_at, ends_at, settled)"
        " SELECT id, date_trunc('month', now()), date_trunc('month', now()) + interval '1 month', 8000000"
        " FROM quotas WHERE team_id = %(team)s ON CONFLICT (quota_id, starts_at) DO UPDATE SET settled = 8000000",
        team=team["id"],
    )
    return str(team["slug"])
