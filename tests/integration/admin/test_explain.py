"""What became of a request id: refusals that were kept, holds with all that belongs to them, in order and in words."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.access.refusals import A_MINUTE, BATCH, KEPT, QUEUE, STRANGERS_A_MINUTE, Refusal, Refusals
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, NewTask, Order, SentVia
from gateway.db.engine import Database
from gateway.db.tables import refusals, tasks
from gateway.errors import GatewayError
from gateway.telemetry import Metrics
from tests.integration.admin.conftest import Admin

CREDIT = 1_000_000
QUOTA = {
    "scope": "team",
    "period": "month",
    "limit": "10",
    "settled": "8",
    "held": "1",
    "needed": "2",
    "remaining": "1",
    "resets_at": None,
}


def refusal(**fields: Any) -> Refusal:
    """A 402 of nobody in particular."""
    plain = Refusal(
        request_id="r",
        at=datetime.now(UTC),
        team_id=None,
        key_id=None,
        route="POST /v1/images/generations",
        operation="images.generations",
        model="gemini-2.5-flash-image",
        status=402,
        reason="quota_exceeded",
        message="This call needs 2 credits.",
        detail={"quota": QUOTA, "asked": {"images": 1}},
        hold_id=None,
        client="10.0.0.7",
    )
    return replace(plain, **fields)


@pytest.fixture
def kept(admin: Admin) -> Refusals:
    return Refusals(admin.database, admin.clock, Metrics())


async def keep(kept: Refusals, *found: Refusal) -> None:
    for one in found:
        kept.note(one)
    await kept.write()


async def explained(admin: Admin, request_id: str) -> dict[str, Any]:
    return await admin.ok("GET", f"/requests/{request_id}/explain")


def steps(story: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["outcome"]) for step in story["steps"]]


async def owner(admin: Admin, name: str) -> tuple[UUID, str]:
    """Team id and key id of a new team."""
    team = await admin.team(name)
    return UUID(team["id"]), (await admin.key(team["slug"]))["id"]


def order(team: UUID, key: str, request_id: str) -> Order:
    return Order(
        team_id=team,
        key_id=key,
        request_id=request_id,
        operation="images.generations",
        model="m",
        quote=CREDIT,
    )


async def test_a_refusal_shows_the_arithmetic(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Refused")
    await keep(kept, refusal(request_id="too-much", team_id=team, key_id=key))
    story = await explained(admin, "too-much")
    assert steps(story) == [("key", "ok"), ("asked", "note"), ("quota", "refused"), ("answer", "refused")]
    words = {step["step"]: step["detail"] for step in story["steps"]}
    assert "limit 10 − settled 8 − held 1 = 1 remaining, 2 needed; never resets" in words["quota"]
    assert "the price book says 2 credits" in words["asked"]
    assert "quotas set" in story["summary"]
    assert (story["hold"], story["task"], story["attempts"], story["earlier"]) == (None, None, [], [])
    assert story["refusal"]["team"] == "refused"
    assert story["refusal"]["detail"]["quota"] == QUOTA


async def test_a_limit_names_itself(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Limited")
    limit = {"scope": "key", "by": "requests_per_minute", "limit": 5, "lane": "paid"}
    one = refusal(
        request_id="fast",
        team_id=team,
        key_id=key,
        status=429,
        reason="requests_per_minute",
        detail={"limit": limit},
    )
    await keep(kept, one)
    story = await explained(admin, "fast")
    assert "requests_per_minute of the key, 5 for paid calls" in story["steps"][-2]["detail"]


async def test_a_key_that_was_not_accepted_is_explained_by_what_it_was(admin: Admin, kept: Refusals) -> None:
    _, key = await owner(admin, "Keys")
    now = datetime.now(UTC)
    stranger = refusal(
        status=401, reason="invalid_key", key_id=key, detail={"key": "not accepted"}, model=None
    )
    await keep(kept, replace(stranger, request_id="typo"))
    assert "secret part is not" in (await explained(admin, "typo"))["steps"][0]["detail"]
    await admin.ok("POST", f"/keys/{key}/revoke")
    await keep(
        kept,
        replace(stranger, request_id="late", at=now + timedelta(minutes=1)),
        replace(stranger, request_id="foreign", key_id="zzzzzzzzzz"),
        replace(stranger, request_id="cut", key_id=None, detail={"key": "malformed"}),
    )
    story = await explained(admin, "late")
    assert story["steps"][0]["outcome"] == "refused"
    assert "revoked since" in story["steps"][0]["detail"]
    assert "does not exist here" in (await explained(admin, "foreign"))["steps"][0]["detail"]
    assert "checksum is wrong" in (await explained(admin, "cut"))["steps"][0]["detail"]


async def test_a_settled_call_is_told_from_hold_to_cost(admin: Admin) -> None:
    team, key = await owner(admin, "Settled")
    await admin.ok("PUT", "/teams/settled/quotas/month", {"limit": 10})
    upstream = await admin.ok("POST", "/upstream-keys", {"label": "told", "secret": "sk-told-0000001"})
    ledger = Ledger(admin.database)
    placed = await ledger.place(order(team, key, "fine"))
    sent = SentVia(upstream_key_id=UUID(upstream["id"]), outcome="answered", status=200, milliseconds=1234)
    await ledger.end(placed.id, Conclusion(state="settled", settled=CREDIT, estimated=True), [sent])
    story = await explained(admin, "fine")
    assert steps(story) == [
        ("key", "ok"), ("price", "ok"), ("hold", "ok"), ("attempt", "ok"), ("end", "ok")
    ]  # fmt: skip
    assert "the team's month quota of 10" in story["steps"][2]["detail"]
    assert "'told': answered, status 200, 1234 ms" in story["steps"][3]["detail"]
    assert "Settled at 1 credits, an estimate by the price book" in story["steps"][4]["detail"]
    assert story["summary"] == "Executed: it was charged 1 credits by the price book."
    assert [one["upstream_key"] for one in story["attempts"]] == ["told"]
    moments = [step["at"] for step in story["steps"]]
    assert moments == sorted(moments)


async def test_an_unknown_call_says_how_to_resolve_it_and_who_did(admin: Admin) -> None:
    team, key = await owner(admin, "Unknown")
    ledger = Ledger(admin.database)
    placed = await ledger.place(order(team, key, "lost"))
    await ledger.end(placed.id, Conclusion(state="unknown", reason="upstream_outcome_unknown"))
    story = await explained(admin, "lost")
    assert f"holds resolve {placed.id}" in story["summary"]
    assert steps(story)[-1] == ("end", "unknown")
    await admin.ok(
        "POST", f"/holds/{placed.id}/resolve", {"outcome": "release", "reason": "Pixapi has no such call"}
    )
    story = await explained(admin, "lost")
    assert story["steps"][-1]["detail"] == "bootstrap resolved the hold (release): Pixapi has no such call"


async def test_a_task_is_part_of_the_story(admin: Admin) -> None:
    team, key = await owner(admin, "Tasks")
    upstream = await admin.ok("POST", "/upstream-keys", {"label": "tasked", "secret": "sk-tasked-000001"})
    ledger = Ledger(admin.database)
    wanted = order(team, key, "task-call")
    placed = await ledger.place(wanted)
    task = NewTask(id="task_told", upstream_key_id=UUID(upstream["id"]), status="submitted", body=b"{}")
    await ledger.bind(placed.id, wanted, task, [])
    story = await explained(admin, "task-call")
    assert story["task"]["id"] == "task_told"
    [told] = [step["detail"] for step in story["steps"] if step["step"] == "task"]
    assert told == "Task task_told is submitted; not read yet."
    assert story["summary"].startswith("Under way: 1 credits are held while its task task_told is submitted")
    async with admin.database.transaction() as connection:
        await connection.execute(tasks.delete().where(tasks.c.id == "task_told"))


async def test_the_refusal_of_a_call_that_had_a_hold_belongs_to_it(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Both")
    ledger = Ledger(admin.database)
    placed = await ledger.place(order(team, key, "both"))
    await ledger.end(placed.id, Conclusion(state="released", reason="no_upstream_key"))
    await keep(
        kept,
        refusal(
            request_id="both", team_id=team, key_id=key, status=503, reason="no_upstream_key", detail={},
            hold_id=placed.id,
        ),
    )  # fmt: skip
    story = await explained(admin, "both")
    assert story["earlier"] == []
    assert (story["hold"]["state"], story["refusal"]["reason"]) == ("released", "no_upstream_key")
    assert "upstream-keys list" in story["summary"]


async def test_a_repeat_names_the_call_it_joined(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Repeats")
    placed = await Ledger(admin.database).place(order(team, key, "first-try"))
    await keep(
        kept,
        refusal(
            request_id="second-try", team_id=team, key_id=key, status=200, reason="replayed", message=None,
            detail={"repeats": str(placed.id)},
        ),
    )  # fmt: skip
    story = await explained(admin, "second-try")
    assert ("repeat", "ok") in steps(story)
    assert "request id first-try, held" in str(story["steps"])
    assert story["summary"].startswith("A repeat")


async def test_one_id_of_many_calls_lists_the_newest_twenty(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Many")
    start = datetime.now(UTC) - timedelta(minutes=10)
    await keep(
        kept,
        *(
            refusal(request_id="same", team_id=team, key_id=key, at=start + timedelta(seconds=n))
            for n in range(25)
        ),
    )
    story = await explained(admin, "same")
    moments = [one["refusal"]["at"] for one in (story, *story["earlier"])]
    assert len(moments) == 20
    assert moments == sorted(moments, reverse=True)


async def test_an_id_that_never_was_is_said_so(admin: Admin) -> None:
    for ident in ("nobody", "a b", "x" * 201):
        status, _, message = await admin.refused("GET", f"/requests/{ident}/explain")
        assert status == 404
        assert ident != "nobody" or "older than a day" in message


# Keeping ---------------------------------------------------------------------------------------------------


async def _count(database: Database) -> int:
    async with database.autocommit() as connection:
        return len((await connection.execute(refusals.select())).all())


def _dropped(kept: Refusals, why: str) -> float:
    return kept.metrics.registry.get_sample_value("gateway_refusals_dropped_total", {"why": why}) or 0.0


async def test_refusals_go_after_a_day(admin: Admin, kept: Refusals) -> None:
    before = await _count(admin.database)
    old = datetime.now(UTC) - KEPT - timedelta(seconds=5)
    await keep(
        kept,
        refusal(request_id="old", key_id="aaaaaaaaaa", at=old),
        refusal(request_id="new", key_id="bbbbbbbbbb"),
    )
    assert await _count(admin.database) == before + 2
    await kept.expire()
    assert (await admin.call("GET", "/requests/old/explain")).status_code == 404
    assert (await admin.call("GET", "/requests/new/explain")).status_code == 200


async def test_a_flood_is_kept_in_part_and_counted(admin: Admin, kept: Refusals) -> None:
    team, key = await owner(admin, "Flood")
    for _ in range(STRANGERS_A_MINUTE + 3):
        kept.note(refusal(key_id="cccccccccc"))
    assert _dropped(kept, "flood") == 3
    for _ in range(A_MINUTE + 4):
        kept.note(refusal(team_id=team, key_id=key))
    assert _dropped(kept, "flood") == 7
    admin.clock.ahead = timedelta(minutes=1)
    kept.note(refusal(key_id="cccccccccc"))
    assert _dropped(kept, "flood") == 7


async def test_the_queue_is_bounded_and_emptied_in_batches(admin: Admin, kept: Refusals) -> None:
    team = UUID((await admin.team("Queue"))["id"])
    for number in range(QUEUE + 5):
        kept.note(refusal(team_id=team, key_id=f"key{number // 100:07d}"))
    assert _dropped(kept, "queue") == 5
    before = await _count(admin.database)
    await kept.write()
    assert await _count(admin.database) == before + BATCH


async def test_without_postgres_they_are_dropped_and_nobody_waits(kept: Refusals) -> None:
    gone = Refusals(Database("postgresql+psycopg://x:x@127.0.0.1:9/x"), kept.clock, Metrics())
    gone.note(refusal(key_id="dddddddddd"))
    await asyncio.wait_for(gone.write(), 10)
    assert _dropped(gone, "database") == 1
    await gone.write()
    with pytest.raises(GatewayError):
        await gone.expire()
    await gone.database.close()
