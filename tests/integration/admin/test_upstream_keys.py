"""The pool's keys over the admin API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select

from gateway.db.tables import tasks, upstream_keys
from gateway.ids import uuid7
from tests.integration.admin.conftest import VAULT, Admin


async def test_a_key_is_sealed_for_its_row(admin: Admin) -> None:
    body = {"label": "main", "secret": "sk-main-12345678", "weight": 3, "max_in_flight": 10}
    answer = await admin.call("POST", "/upstream-keys", body)
    assert answer.status_code == 201
    key = answer.json()
    assert (key["label"], key["account"], key["last4"], key["weight"]) == ("main", "main", "5678", 3)
    assert (key["state"], key["state_reason"], key["max_in_flight"]) == ("active", None, 10)
    assert set(key) == {
        "id", "label", "account", "last4", "weight", "max_in_flight", "state", "state_reason", "state_changed_at",
        "paid_rests_until", "reads_rest_until", "rest_reason", "next_check_at", "created_at",
    }  # fmt: skip
    assert await admin.ok("GET", f"/upstream-keys/{key['id']}") == key
    assert await admin.ok("GET", "/upstream-keys/main") == key
    async with admin.database.autocommit() as connection:
        query = select(upstream_keys.c.secret).where(upstream_keys.c.id == UUID(key["id"]))
        sealed = (await connection.execute(query)).scalar_one()
    assert b"sk-main" not in sealed
    assert VAULT.open(UUID(key["id"]), sealed) == "sk-main-12345678"
    assert admin.heard.news == [("upstream-key", key["id"])]


async def test_labels_and_secrets_are_there_once(admin: Admin) -> None:
    key = await admin.ok("POST", "/upstream-keys", {"label": "one", "secret": "sk-one-12345678"})
    double = {"label": "two", "secret": "sk-one-12345678"}
    status, reason, message = await admin.refused("POST", "/upstream-keys", double)
    assert (status, reason) == (409, "upstream_key_exists")
    assert message == "secret: this key is already stored as 'one'"
    status, _, message = await admin.refused(
        "POST", "/upstream-keys", {"label": "one", "secret": "sk-else-000"}
    )
    assert (status, message) == (409, "label: 'one' belongs to another upstream key")
    await admin.ok("POST", "/upstream-keys", {"label": "two", "secret": "sk-two-12345678"})
    assert (await admin.refused("PATCH", "/upstream-keys/two", {"label": "one"}))[0] == 409

    removed = await admin.ok("DELETE", "/upstream-keys/one")
    assert removed["id"] == key["id"]
    again = await admin.ok("POST", "/upstream-keys", {"label": "one", "secret": "sk-one-12345678"})
    assert again["id"] != key["id"]


@pytest.mark.parametrize(
    "secret", ["short", "with space 123", "x" * 513, "tab\t12345678", "ünï-12345678", 12345678, None]
)
async def test_a_bad_secret_is_refused_without_repeating_it(admin: Admin, secret: object) -> None:
    status, _, message = await admin.refused("POST", "/upstream-keys", {"label": "bad", "secret": secret})
    assert status == 400
    assert message == "secret: must be 8 to 512 printable ASCII characters without spaces"


async def test_wrong_fields_are_named(admin: Admin) -> None:
    body = {
        "label": "01a20317-bcf1-7375-9a5a-cbeea84acd86",
        "secret": "sk-12345678",
        "weight": 1001,
        "wait": 1,
    }
    status, _, message = await admin.refused("POST", "/upstream-keys", body)
    assert status == 400
    assert message.split("; ") == [
        "label: must not look like an id",
        "weight: must be a whole number from 1 to 1000",
        "wait: unknown field, did you mean weight?",
    ]


async def test_a_key_is_changed(admin: Admin) -> None:
    key = await admin.ok(
        "POST", "/upstream-keys", {"label": "old", "secret": "sk-changed-1", "max_in_flight": 1}
    )
    change = {"label": "new", "account": "acme", "weight": 9, "max_in_flight": None}
    changed = await admin.ok("PATCH", "/upstream-keys/old", change)
    assert {name: changed[name] for name in change} == change
    [entry, _] = await admin.audit(subject_type="upstream-key", subject_id=key["id"])
    assert entry["detail"]["account"] == {"from": "old", "to": "acme"}
    status, _, message = await admin.refused("PATCH", "/upstream-keys/new", {"secret": "sk-other-123"})
    assert (status, message) == (400, "secret: unknown field")


async def test_states_are_turned_and_rests_forgotten(admin: Admin) -> None:
    key = await admin.ok("POST", "/upstream-keys", {"label": "turning", "secret": "sk-turning-1"})
    draining = await admin.ok("POST", "/upstream-keys/turning/drain")
    assert (draining["state"], draining["state_reason"]) == ("draining", "by bootstrap")
    assert draining["state_changed_at"] > key["state_changed_at"]
    assert await admin.ok("POST", "/upstream-keys/turning/drain") == draining
    assert (await admin.ok("POST", "/upstream-keys/turning/disable"))["state"] == "disabled"

    until = datetime.now(UTC) + timedelta(hours=1)
    rests = {"paid_rests_until": until, "reads_rest_until": until, "rest_reason": "credits", "rest_count": 4}
    where = upstream_keys.c.id == UUID(key["id"])
    async with admin.database.transaction() as connection:
        await connection.execute(upstream_keys.update().where(where).values(**rests))
    enabled = await admin.ok("POST", "/upstream-keys/turning/enable")
    assert (enabled["state"], enabled["state_reason"]) == ("active", None)
    assert [enabled[name] for name in list(rests)[:3]] == [None, None, None]
    async with admin.database.autocommit() as connection:
        count = (await connection.execute(select(upstream_keys.c.rest_count).where(where))).scalar_one()
    assert count == 0
    entries = await admin.audit(subject_type="upstream-key", subject_id=key["id"])
    assert [entry["action"].partition(".")[2] for entry in entries] == ["enable", "disable", "drain", "add"]


async def test_a_key_whose_tasks_only_it_can_read_stays(admin: Admin) -> None:
    await admin.team("Submitting")
    owner = await admin.key("submitting")
    key = await admin.ok(
        "POST", "/upstream-keys", {"label": "busy", "secret": "sk-busy-1234", "account": "shared"}
    )
    async with admin.database.transaction() as connection:
        await connection.execute(
            tasks.insert().values(
                id="task_busy",
                team_id=UUID(owner["team_id"]),
                key_id=owner["id"],
                hold_id=uuid7(),
                upstream_key_id=UUID(key["id"]),
                model="m",
                operation="o",
                status="processing",
                body=json.dumps({}).encode(),
            )
        )
    status, reason, message = await admin.refused("DELETE", "/upstream-keys/busy")
    assert (status, reason) == (409, "unfinished_tasks")
    assert message.startswith("1 unfinished task ")
    assert (await admin.refused("DELETE", "/upstream-keys/busy", force="yes"))[0] == 400

    brother = {"label": "brother", "secret": "sk-brother-1", "account": "shared"}
    await admin.ok("POST", "/upstream-keys", brother)
    await admin.ok("DELETE", "/upstream-keys/brother")
    assert (await admin.refused("DELETE", "/upstream-keys/busy"))[0] == 409, "the other key is gone again"
    await admin.ok("DELETE", "/upstream-keys/busy", force="true")
    [entry, _] = await admin.audit(subject_type="upstream-key", subject_id=key["id"])
    assert entry["detail"] == {"label": "busy", "unfinished_tasks": 1}
    assert (await admin.refused("GET", f"/upstream-keys/{key['id']}"))[0] == 404
    async with admin.database.autocommit() as connection:
        query = select(upstream_keys.c.secret).where(upstream_keys.c.id == UUID(key["id"]))
        assert (await connection.execute(query)).scalar_one() == b""


async def test_a_key_another_of_its_account_can_stand_in_for_goes(admin: Admin) -> None:
    await admin.team("Shared")
    owner = await admin.key("shared")
    one, two = [
        await admin.ok(
            "POST", "/upstream-keys", {"label": label, "secret": f"sk-{label}-123", "account": "twin"}
        )
        for label in ("twin-1", "twin-2")
    ]
    async with admin.database.transaction() as connection:
        await connection.execute(
            tasks.insert().values(
                id="task_twin",
                team_id=UUID(owner["team_id"]),
                key_id=owner["id"],
                hold_id=uuid7(),
                upstream_key_id=UUID(one["id"]),
                model="m",
                operation="o",
                status="processing",
                body=b"{}",
            )
        )
    await admin.ok("DELETE", f"/upstream-keys/{one['id']}")
    listed = (await admin.ok("GET", "/upstream-keys", limit="200"))["data"]
    assert two["id"] in [key["id"] for key in listed]
    assert one["id"] not in [key["id"] for key in listed]


@pytest.mark.parametrize("ref", ["nobody", "00000000-0000-7000-8000-000000000000", "a%00b", "x" * 201])
async def test_unknown_upstream_keys_are_404(admin: Admin, ref: str) -> None:
    for method, verb in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/drain"), ("POST", "/enable")):
        assert (await admin.refused(method, f"/upstream-keys/{ref}{verb}"))[0] == 404
