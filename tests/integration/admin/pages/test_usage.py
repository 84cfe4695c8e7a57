"""The page of usage: ranges, groups, totals, its file, and the page to connect by."""

from __future__ import annotations

import itertools
from datetime import date
from typing import Any

import pytest

from gateway.admin.pages import usage
from gateway.admin.pages.usage import asked_for
from tests.integration.admin.pages.conftest import Dashboard, text_of

_NUMBERS = itertools.count()


async def spender(dashboard: Dashboard) -> tuple[dict[str, Any], dict[str, Any]]:
    """A team and its key, which spent 8 credits on one model, 2.5 of them estimated, and 1 on another, in 2026."""
    team = await dashboard.api("POST", "/teams", {"name": f"User {next(_NUMBERS)}", "unlimited": True})
    key = await dashboard.api("POST", f"/teams/{team['id']}/keys", {"name": "laptop"})
    for model, spent, estimated in (("alpha", 8_000_000, 2_500_000), ("beta", 1_000_000, 0)):
        await dashboard.site.sql(
            "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, failed, credits,"
            " estimated_credits) VALUES ('2026-03-05 10:00Z', %(team)s, %(key)s, %(model)s, 'images.generations',"
            " '2026-03-05', 3, 1, %(credits)s, %(estimated)s)",
            team=team["id"],
            key=key["id"],
            model=model,
            credits=spent,
            estimated=estimated,
        )
    return team, key


MARCH = {"from": "2026-03-01", "to": "2026-04-01"}


async def test_totals_and_the_file_are_those_of_the_api(dashboard: Dashboard) -> None:
    team, key = await spender(dashboard)
    text = await dashboard.page("/usage", 200, team=team["slug"], by_key="1", by_model="1", **MARCH)
    assert f"laptop {key['id']} alpha 8.00 2.50 3 1" in text
    assert f"laptop {key['id']} beta 1.00 – 3 1" in text
    assert "Total 9.00 2.50 6 2" in text
    assert "27 % of the credits are estimates" in text
    assert "Spend over time" in text
    own = await dashboard.viewer.get(
        "/admin/usage", params={"team": team["slug"], "by": "key,model", "format": "csv", **MARCH}
    )
    query = {"team": team["slug"], "by": "key,model", "format": "csv", **MARCH}
    api = await dashboard.viewer.get("/admin/api/usage", params=query)
    assert own.text == api.text
    assert own.text.splitlines()[-1] == "total,,6,2,9,2.5,0"
    assert own.headers["content-disposition"] == api.headers["content-disposition"]


async def test_by_day_there_is_no_chart(dashboard: Dashboard) -> None:
    team, _ = await spender(dashboard)
    text = await dashboard.page("/usage", 200, team=team["slug"], by="day", **MARCH)
    assert "2026-03-05 9.00 2.50 6 2" in text
    assert "Spend over time" not in text


async def test_of_many_rows_the_dearest_are_shown(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, _ = await spender(dashboard)
    monkeypatch.setattr(usage, "SHOWN", 1)
    text = await dashboard.page("/usage", 200, team=team["slug"], by="model", **MARCH)
    assert "The 1 rows with the most credits of 2" in text
    assert "beta" not in text.split("Credits Of it estimated")[1]
    assert "Total 9.00 2.50 6 2" in text


async def test_what_was_typed_wrongly_is_said(dashboard: Dashboard) -> None:
    bad = {"from": "<b>yesterday", "to": "2026-04-01"}
    source = await dashboard.source("/usage", 400, **bad)
    assert "must be a date such as" in source
    assert "<b>yesterday" not in source
    assert "must be after from" in await dashboard.page(
        "/usage", 400, **{"from": "2026-04-01", "to": "2026-03-01"}
    )
    assert "There is no team" in await dashboard.page("/usage", 400, team="nobody-here")
    assert "Nothing was used in this time" in await dashboard.page(
        "/usage", 200, **{"from": "2020-01-01", "to": "2020-01-02"}
    )


@pytest.mark.parametrize(
    ("query", "start", "end", "by"),
    [
        ({}, "2026-03-01", "2026-03-06", ("team",)),
        ({"range": "last-month"}, "2026-02-01", "2026-03-01", ("team",)),
        ({"range": "7d", "by": "model,team"}, "2026-02-27", "2026-03-06", ("team", "model")),
        ({"from": "2026-01-01", "by_day": "1"}, "2026-01-01", "2026-03-06", ("day",)),
        ({"range": "nonsense", "by": "nonsense"}, "2026-03-01", "2026-03-06", ("team",)),
    ],
)
def test_an_address_says_what_is_asked(
    query: dict[str, str], start: str, end: str, by: tuple[str, ...]
) -> None:
    asked = asked_for(query, date(2026, 3, 5))
    assert (asked.start, asked.end, asked.by) == (start, end, by)


def test_last_month_over_a_new_year() -> None:
    asked = asked_for({"range": "last-month"}, date(2026, 1, 31))
    assert (asked.start, asked.end) == ("2025-12-01", "2026-01-01")


async def test_snippets_have_this_address(dashboard: Dashboard) -> None:
    for language, said in (
        ("curl", "-H"),
        ("python", "OpenAI()"),
        ("javascript", "new OpenAI"),
        ("go", "package main"),
    ):
        text = await dashboard.page("/connect", lang=language)
        assert 'export OPENAI_BASE_URL="http://gateway.test/v1"' in text
        assert said in text
    odd = await dashboard.viewer.get("/admin/connect", params={"lang": "<script>"})
    assert "curl &#34;$OPENAI_BASE_URL" in odd.text
    assert "<script>" not in odd.text
    assert "402" in text_of(odd.text)
