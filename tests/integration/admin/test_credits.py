"""Usage, holds and the ledger's proof over the admin API and the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from gateway.credits.amount import MICRO
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, Order, SentVia
from tests.integration.admin.conftest import Admin
from tests.integration.admin.test_command_line import CommandLine, cli, config_dir

__all__ = ["cli", "config_dir"]  # fixtures


async def _place(admin: Admin, team: dict[str, str], credits_: int = 8, request_id: str = "req_1") -> UUID:
    order = Order(
        team_id=UUID(team["id"]),
        key_id="0123456789",
        request_id=request_id,
        operation="images.generations",
        model="a-model",
        quote=credits_ * MICRO,
    )
    return (await Ledger(admin.database).place(order)).id


async def _unknown(admin: Admin, team: dict[str, str], request_id: str = "req_1") -> UUID:
    hold = await _place(admin, team, request_id=request_id)
    await Ledger(admin.database).end(hold, Conclusion(state="unknown", reason="timed out"))
    return hold


async def test_holds_are_listed_and_narrowed(admin: Admin) -> None:
    team, other = await admin.team("Holders"), await admin.team("Others")
    first = await _place(admin, team, request_id="req_first")
    await _unknown(admin, other)
    second = await _unknown(admin, team)
    page = await admin.ok("GET", "/holds", team="holders", limit="1")
    assert [row["id"] for row in page["data"]] == [str(second)]
    assert page["has_more"]
    [row] = (await admin.ok("GET", "/holds", team="holders", after=page["next"]))["data"]
    assert list(row) == [
        "id", "state", "team", "key", "model", "operation", "quote", "settled", "estimated", "flags", "task_id",
        "request_id", "created_at", "ended_at", "reason",
    ]  # fmt: skip
    assert (row["id"], row["state"], row["team"], row["key"]) == (str(first), "held", "holders", "0123456789")
    assert (row["quote"], row["settled"], row["flags"], row["reason"]) == (8, None, [], None)
    for narrow in ({"state": "held"}, {"request_id": "req_first"}):
        found = (await admin.ok("GET", "/holds", team="holders", **narrow))["data"]
        assert [one["id"] for one in found] == [str(first)]
    assert (await admin.ok("GET", "/holds", team="holders", key="nobody"))["data"] == []
    assert (await admin.ok("GET", "/holds", team="holders", model="nothing"))["data"] == []
    assert (await admin.refused("GET", "/holds", state="open"))[0] == 400
    assert (await admin.ok("GET", "/status"))["counts"]["unknown_holds"] >= 2


async def test_holds_are_bounded_by_the_instant_they_were_placed_at(admin: Admin, cli: CommandLine) -> None:
    team = await admin.team("Bounded")
    hold = await _place(admin, team, request_id="req_bounded")
    placed = datetime.fromisoformat((await admin.ok("GET", f"/holds/{hold}"))["created_at"])
    before, after = placed - timedelta(minutes=1), placed + timedelta(minutes=1)
    day = placed.date()
    for path in ("/holds", "/requests"):
        for bounds, found in (
            ({"from": before.isoformat(), "to": after.isoformat()}, 1),
            ({"from": after.isoformat()}, 0),
            ({"to": before.isoformat()}, 0),
            ({"from": day.isoformat()}, 1),
            ({"to": day.isoformat()}, 0),
            ({"from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat()}, 1),
        ):
            assert len((await admin.ok("GET", path, team="bounded", **bounds))["data"]) == found, bounds
    for wrong in ("2026-02-30", "2026-03-01T10:00:00", "soon", "0001-01-01"):
        assert "from: must be a date" in (await admin.refused("GET", "/holds", **{"from": wrong}))[2]
    arguments = ("requests", "list", "--team", "bounded", "--from", before.isoformat())
    listed = await asyncio.to_thread(cli.ok, *arguments)
    assert [row["request_id"] for row in listed["data"]] == ["req_bounded"]
    assert (await admin.refused("GET", "/holds/nothing"))[:2] == (404, "hold_not_found")


async def test_requests_show_every_send(admin: Admin) -> None:
    team = await admin.team("Senders", unlimited=True)
    await admin.ok("PUT", "/teams/senders/quotas/day", {"limit": 1, "enforce": False})
    key = await admin.ok("POST", "/upstream-keys", {"label": "sending", "secret": "sk-sending-0001"})
    hold = await _place(admin, team)
    sent = [
        SentVia(upstream_key_id=UUID(key["id"]), outcome=outcome, status=status, milliseconds=5)
        for outcome, status in (("rate_limited", 429), ("unknown", None))
    ]
    await Ledger(admin.database).end(hold, Conclusion(state="unknown", reason="reset"), sent)
    [row] = (await admin.ok("GET", "/requests", team="senders", state="unknown"))["data"]
    assert row["shadow_refused"] is True
    assert [(one["number"], one["upstream_key"], one["status"]) for one in row["attempts"]] == [
        (1, "sending", 429),
        (2, "sending", None),
    ]


@pytest.mark.parametrize(
    ("body", "state", "settled", "estimated", "flags"),
    [
        ({"outcome": "settle"}, "settled", 8, True, []),
        ({"outcome": "settle", "credits": 2.5}, "settled", 2.5, False, []),
        ({"outcome": "settle", "credits": 0}, "settled", 0, False, []),
        ({"outcome": "settle", "credits": 9}, "settled", 9, False, ["overrun"]),
        ({"outcome": "release"}, "released", None, False, []),
    ],
)
async def test_an_unknown_hold_ends_by_an_admin_s_word(
    admin: Admin, body: dict[str, object], state: str, settled: object, estimated: bool, flags: list[str]
) -> None:
    slug = f"resolved-{state}-{settled}".replace(".", "-").lower()
    team = await admin.team("Resolved", slug=slug)
    await admin.ok("PUT", f"/teams/{slug}/quotas/total", {"limit": 100})
    hold = await _unknown(admin, team)
    path = f"/holds/{hold}/resolve"
    row = await admin.ok("POST", path, {**body, "reason": "the invoice"})
    assert (row["state"], row["settled"], row["estimated"], row["flags"]) == (
        state,
        settled,
        estimated,
        flags,
    )
    assert row["reason"] == "the invoice"
    assert row["ended_at"] is not None
    [entry] = await admin.audit(subject_type="hold", subject_id=str(hold))
    assert (entry["actor"], entry["action"], entry["team_id"]) == ("bootstrap", "hold.resolve", team["id"])
    assert entry["detail"]["reason"] == "the invoice"
    assert (await admin.refused("POST", path, {**body, "reason": "again"}))[:2] == (409, "hold_not_unknown")
    assert len(await admin.audit(subject_type="hold", subject_id=str(hold))) == 1
    async with admin.database.autocommit() as connection:
        query = f"SELECT DISTINCT actor FROM ledger_entries WHERE hold_id = '{hold}' AND kind <> 'place'"
        assert (await connection.exec_driver_sql(query)).scalars().all() == ["bootstrap"]
    assert (await admin.ok("GET", "/ledger/verify"))["ok"]


async def test_what_cannot_be_resolved_says_why(admin: Admin) -> None:
    team = await admin.team("Unresolved")
    held = await _place(admin, team)
    reason = {"reason": "x"}
    path = f"/holds/{held}/resolve"
    assert (await admin.refused("POST", path, {"outcome": "settle", **reason}))[:2] == (
        409,
        "hold_not_unknown",
    )
    for nowhere in ("nonsense", "00000000-0000-7000-8000-000000000000"):
        found = await admin.refused("POST", f"/holds/{nowhere}/resolve", {"outcome": "settle", **reason})
        assert found[:2] == (404, "hold_not_found")
    status, _, message = await admin.refused("POST", path, {"outcome": "undo", "credits": -1})
    assert status == 400
    assert all(name in message for name in ("outcome:", "credits:", "reason: required"))
    both = await admin.refused("POST", path, {"outcome": "release", "credits": 1, **reason})
    assert (both[0], "credits: must not be given" in both[2]) == (400, True)


async def test_usage_as_json_and_csv(admin: Admin) -> None:
    team = await admin.team("Used")
    for number in range(3):
        hold = await _place(admin, team)
        conclusion = Conclusion(state="settled", settled=100_001, estimated=number == 0)
        await Ledger(admin.database).end(hold, conclusion)
    found = await admin.ok("GET", "/usage", team="used", by="team,model,day")
    assert found["by"] == ["team", "model", "day"]
    assert sum(row["requests"] for row in found["data"]) == found["totals"]["requests"] == 3
    assert {row["team"] for row in found["data"]} == {"used"}
    assert {row["team_id"] for row in found["data"]} == {team["id"]}
    assert "key" not in found["data"][0]
    assert (found["totals"]["credits"], found["totals"]["estimated_credits"]) == (0.300003, 0.100001)
    answer = await admin.call("GET", "/usage", None, team="used", by="model,team", format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert (rows[0]["model"], rows[0]["team"], rows[0]["credits"]) == ("a-model", "used", "0.300003")
    assert (rows[-1]["model"], rows[-1]["credits"]) == ("total", "0.300003")
    whole = await admin.ok("GET", "/usage")
    assert whole["by"] == ["team"]
    assert whole["totals"]["requests"] >= 3
    nothing = await admin.ok("GET", "/usage", **{"from": "2020-01-01", "to": "2020-02-01"})
    assert (nothing["from"], nothing["to"], nothing["data"]) == ("2020-01-01", "2020-02-01", [])
    assert nothing["totals"]["credits"] == 0


async def test_wrong_questions_about_usage_are_named(admin: Admin) -> None:
    wrong = {"from": "2026-01-01T00:07:00Z", "to": "soon", "by": "cost", "format": "xls", "fron": "x"}
    status, reason, message = await admin.refused("GET", "/usage", **wrong)
    assert (status, reason) == (400, "invalid_fields")
    for part in (
        "from: must fall on a quarter",
        "to: must be a date",
        "by: must be one",
        "format: ",
        "mean from",
    ):
        assert part in message, message
    status, _, message = await admin.refused("GET", "/usage", **{"from": "2026-02-01", "to": "2026-02-01"})
    assert (status, "to: must be after from" in message) == (400, True)
    assert (await admin.refused("GET", "/usage", team="nowhere"))[0] == 404


async def test_the_proof_and_its_repair(admin: Admin, cli: CommandLine) -> None:
    team = await admin.team("Proven")
    await admin.ok("PUT", "/teams/proven/quotas/month", {"limit": 100})
    await _place(admin, team)
    proof = await admin.ok("GET", "/ledger/verify")
    assert (proof["ok"], proof["differences"]) == (True, [])
    assert set(proof["checked"]) == {"holds", "entries", "counters", "buckets", "tasks"}
    quota = f"SELECT id FROM quotas WHERE team_id = '{team['id']}'"
    async with admin.database.transaction() as connection:
        await connection.exec_driver_sql(
            f"UPDATE quota_periods SET held = held + 1 WHERE quota_id IN ({quota})"
        )
    [found] = (await admin.ok("GET", "/ledger/verify"))["differences"]
    assert (found["kind"], found["expected"], found["found"]) == (
        "counter",
        "settled 0, held 8",
        "settled 0, held 8.000001",
    )
    assert "(proven, month from " in found["subject"]
    result = await asyncio.to_thread(cli.run, "ledger", "verify")
    assert result.exit_code == 1
    assert "held 8.000001" in result.stdout
    as_json = await asyncio.to_thread(cli.run, "ledger", "verify", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["differences"] == [found]
    repaired = await admin.ok("POST", "/ledger/repair")
    assert (repaired["ok"], repaired["repaired"]) == (True, {"counters": 1, "buckets": 0})
    [entry] = [one for one in await admin.audit(team="proven") if one["action"] == "ledger.repair"]
    assert entry["actor"] == "bootstrap"
    assert (await asyncio.to_thread(cli.run, "ledger", "verify", "--repair")).exit_code == 0


async def test_the_command_line_reads_and_resolves(admin: Admin, cli: CommandLine) -> None:
    team = await admin.team("Typed")
    hold = await _unknown(admin, team, "req_typed")
    found = await asyncio.to_thread(
        cli.ok, "holds", "list", "--state", "unknown", "--request-id", "req_typed"
    )
    [row] = found["data"]
    assert row["id"] == str(hold)
    unasked = await asyncio.to_thread(
        cli.run, "holds", "resolve", str(hold), "--outcome", "settle", "--reason", "r"
    )
    assert (unasked.exit_code, "--yes" in unasked.stderr) == (2, True)
    resolved = await asyncio.to_thread(
        cli.ok,
        "holds",
        "resolve",
        str(hold),
        "--outcome",
        "settle",
        "--credits",
        "2.5",
        "--reason",
        "r",
        "--yes",
    )
    assert (resolved["state"], resolved["settled"]) == ("settled", 2.5)
    used = await asyncio.to_thread(cli.ok, "usage", "--by", "model,key", "--team", "typed")
    assert used["totals"]["credits"] == 2.5
    table = await asyncio.to_thread(cli.run, "usage", "--team", "typed")
    assert table.stdout.splitlines()[-1].split("\t")[:5] == ["total", "", "1", "0", "2.5"]
    as_csv = await asyncio.to_thread(
        cli.run,
        "usage",
        "--by",
        "model",
        "--team",
        "typed",
        "--csv",
        "--from",
        "2026-01-01",
        "--to",
        "2100-01-01",
    )
    assert as_csv.stdout.splitlines()[-1] == "total,1,0,2.5,0,0"
    assert (await asyncio.to_thread(cli.run, "usage", "--csv", "--json")).exit_code == 2
    assert (await asyncio.to_thread(cli.run, "usage", "--by", "cost")).exit_code == 2
    assert (await asyncio.to_thread(cli.run, "usage", "--from", "2026-01-01T00:01:00Z")).exit_code == 2
