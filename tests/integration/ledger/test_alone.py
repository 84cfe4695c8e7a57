"""A call alone is placed, and ends, as one of a group does: the same answers, the same rows, the same refusals.

An item that is named twice in one statement makes a group, in which the second naming changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ids import uuid7
from tests.integration.ledger.book import CLOCK, UPSTREAM_KEY, address

Connection = psycopg.Connection[tuple[Any, ...]]
Item = dict[str, Any]

TEAMS = {"a": UUID(int=1), "b": UUID(int=2)}
KEYS = ("first", "second", "next")  # the last replaces the first, and counts on its quotas
WRITTEN = (
    "holds",
    "ledger_entries",
    "attempts",
    "idempotency_records",
    "usage_buckets",
    "usage_days_late",
    "quota_periods",
)
ROWS = " UNION ALL ".join(f"SELECT '{table}', to_jsonb(t)::text FROM {table} t" for table in WRITTEN)
PLACE, END = "gateway_place_calls", "gateway_end"
NO_FUNCTION = "42883"
FIRST = uuid7()  # the calls' ids are the next


@pytest.fixture(scope="module")
def sql(module_database_url: str) -> Iterator[Connection]:
    """Two teams of three keys each, one of them in a zone with half hours; the clock can be moved."""
    with psycopg.connect(address(module_database_url), autocommit=True) as connection:
        connection.execute(CLOCK)
        for name, zone in (("a", "Asia/Kolkata"), ("b", "UTC")):
            connection.execute(
                "INSERT INTO teams (id, slug, name, time_zone) VALUES (%s, %s, 'T', %s)",
                (TEAMS[name], name, zone),
            )
            for key in KEYS:
                line = f"{name}-first" if key == "next" else f"{name}-{key}"
                connection.execute(
                    "INSERT INTO team_keys (id, team_id, name, digest, last4, quota_key_id)"
                    " VALUES (%s, %s, 'k', %s, 'last', %s)",
                    (f"{name}-{key}", TEAMS[name], f"{name}-{key}".encode(), line),
                )
        yield connection


def place_item(draw: st.DrawFn, calls: list[Item]) -> Item:
    """A call; sometimes one that was placed before, or tried, sent again as it was."""
    if calls and draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(calls))
    team = draw(st.sampled_from(sorted(TEAMS)))
    item: Item = {
        "id": str(UUID(int=FIRST.int + 1 + len(calls))),
        "team": str(TEAMS[team]),
        "key": f"{team}-{draw(st.sampled_from((*KEYS, 'unknown')))}",
        "request": "r",
        "operation": "images",
        "model": draw(st.sampled_from(("m", "n"))),
        "quote": draw(st.sampled_from((0, 1, 1, 2, 3, 5, -1, 10**30, None))),
    }
    known_by = draw(st.sampled_from(("nothing", "body", "body", "key", "joins")))
    if known_by != "nothing":
        item |= {"idempotency_key": None, "fingerprint": draw(st.sampled_from(("aa", "bb"))), "lives": 600.0}
    if known_by == "key":
        item["idempotency_key"] = draw(st.sampled_from(("one", "two")))
    if known_by == "joins":
        item |= {"joinable": 60.0, "grace": 5.0, "number": draw(st.sampled_from((None, 1)))}
    calls.append(item)
    return item


def end_item(draw: st.DrawFn, calls: list[Item]) -> Item:
    """The end of one of the last two, or of none."""
    sends = [
        {
            "number": number,
            "upstream_key": str(UPSTREAM_KEY),
            "outcome": "o",
            "status": 200,
            "milliseconds": 1,
        }
        for number in range(1, 1 + draw(st.integers(0, 2)))
    ]
    return {
        "id": draw(st.sampled_from([*(call["id"] for call in calls[-2:]), str(FIRST)])),
        "state": draw(
            st.sampled_from(("settled", "settled", "released", "unknown", "unknown", "held", None))
        ),
        "settled": draw(st.sampled_from((None, 0, 1, 1, 2, 4, -1))),
        "estimated": draw(st.sampled_from((None, False, True))),
        "flags": draw(st.sampled_from((None, [], ["odd_answer"], ["overrun"]))),
        "reason": draw(st.sampled_from((None, "why"))),
        "actor": draw(st.sampled_from((None, "admin"))),
        "sent": draw(st.sampled_from((None, sends, sends))),
    }


Step = tuple[str, Any]


def a_quota(draw: st.DrawFn, number: int) -> Step:
    team = draw(st.sampled_from(sorted(TEAMS)))
    what = {
        "id": UUID(int=number),
        "team": TEAMS[team],
        "key": draw(st.sampled_from((None, None, f"{team}-first", f"{team}-second"))),
        "period": draw(st.sampled_from(("day", "week", "month", "total"))),
        "limit": draw(st.integers(0, 6)),
        "enforce": draw(st.booleans()),
        "opened": draw(st.integers(0, 3)) > 0,
    }
    return "quota", what


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Some quotas, then calls, their ends, and changes between them."""
    found = [a_quota(draw, number) for number in range(draw(st.integers(0, 4)))]
    calls: list[Item] = []
    for number in range(draw(st.integers(2, 12))):
        kind = draw(st.sampled_from(("quota", "place", "place", "place", "end", "end", "clock", "close")))
        if kind == "quota":
            found.append(a_quota(draw, 10 + number))
        elif kind == "place":
            found.append((PLACE, place_item(draw, calls)))
        elif kind == "end":
            found.append((END, end_item(draw, calls)))
        else:
            found.append((kind, draw(st.sampled_from((1, 25, 24 * 32)) if kind == "clock" else st.none())))
    return found


def change(sql: Connection, kind: str, what: Any) -> None:
    if kind == "clock":
        sql.execute("UPDATE clock.ahead SET by = by + make_interval(hours => %s)", (what,))
    elif kind == "close":  # open holds go on naming its counters
        sql.execute("DELETE FROM quotas WHERE id = (SELECT id FROM quotas ORDER BY id LIMIT 1)")
    else:
        sql.execute(
            "INSERT INTO quotas (id, team_id, key_id, period, limit_micro, enforce)"
            " VALUES (%(id)s, %(team)s, %(key)s, %(period)s, %(limit)s, %(enforce)s) ON CONFLICT DO NOTHING",
            what,
        )
        if what["opened"]:
            sql.execute("SELECT gateway_open_counters(%s)", (what["team"],))


def said(sql: Connection, function: str, items: list[Item]) -> tuple[Any, list[tuple[Any, ...]]]:
    """What is answered to the first item, or the SQLSTATE of the refusal, and every row there is then."""
    try:
        with sql.transaction():
            answer: Any = sql.execute(f"SELECT * FROM {function}(%s, NULL)", (json.dumps(items),)).fetchone()
    except psycopg.Error as error:
        answer = error.sqlstate
    return answer, sql.execute(f"{ROWS} ORDER BY 1, 2").fetchall()


@settings(max_examples=150)
@given(found=steps())
def test_a_call_alone_is_decided_and_written_as_in_a_group(sql: Connection, found: list[Step]) -> None:
    with sql.transaction(force_rollback=True):
        for kind, what in found:
            if kind not in {PLACE, END}:
                change(sql, kind, what)
                continue
            with sql.transaction(force_rollback=True):
                group = said(sql, kind, [what, what])
            alone = said(sql, kind, [what])
            assert alone == group, (kind, what)


def test_the_usual_call_alone_is_not_taken_for_a_group(sql: Connection) -> None:
    """Otherwise the test above would compare a group with a group."""
    call: Item = {
        "id": str(uuid7()),
        "team": str(TEAMS["a"]),
        "key": "a-first",
        "request": "r",
        "fingerprint": "aa",
    }
    call |= {"operation": "images", "model": "m", "quote": 1, "lives": 600.0}
    end = {"id": call["id"], "state": "settled", "settled": 1, "sent": []}
    with sql.transaction(force_rollback=True):
        sql.execute("ALTER FUNCTION gateway_hold_calls(gateway_call[]) RENAME TO of_a_group")
        assert said(sql, PLACE, [call])[0][1] == "placed"
        assert said(sql, PLACE, [call, call])[0] == NO_FUNCTION
        assert said(sql, PLACE, [call])[0] == NO_FUNCTION  # it is there now: that is looked at as in a group
        sql.execute("ALTER FUNCTION gateway_end_call(gateway_ending) RENAME TO of_one")
        assert said(sql, END, [end])[0] == NO_FUNCTION
        assert said(sql, END, [end, end])[0][1] is True
