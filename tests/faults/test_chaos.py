"""Chaos, then healing, then every invariant: nothing paid twice, nothing lost, nothing told to the wrong one.

PXG_CHAOS_SEEDS ("1 2 3") and PXG_CHAOS_SECONDS choose other runs; `make chaos` sets both.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import make_url

from gateway.credits.aging import Ages, Aging
from gateway.db.engine import Database
from gateway.sandbox.journal import JOURNAL_LENGTH
from tests.e2e.data_plane.rig import ASYNC, MICRO, SYNC, caller, error_of, header, order, runs_of
from tests.e2e.harness import eventually
from tests.faults.chaos import Chaos, chaos

SEEDS = [int(seed) for seed in os.environ.get("PXG_CHAOS_SEEDS", "1").split()]
SECONDS = float(os.environ.get("PXG_CHAOS_SECONDS", "4"))
HEALED_WITHIN = 60.0
RANK = {"submitted": 0, "processing": 1, "completed": 2, "failed": 2}
KINDS = {
    400: {"invalid_request_error"},
    402: {"insufficient_quota"},
    404: {"not_found_error"},
    409: {"idempotency_in_progress"},
    429: {"rate_limit_error"},
    502: {"upstream_error", "upstream_outcome_unknown"},
    503: {"overloaded", "dependency_unavailable", "upstream_unavailable"},
    504: {"upstream_outcome_unknown"},
}

pytestmark = [
    pytest.mark.timeout(SECONDS + 2 * HEALED_WITHIN + 60),
    # asyncio's servers forget a connection that they take in the moment they are closed, as the proxies are.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
Row = dict[str, Any]


class Books:
    """What the database and the sandbox say after a run."""

    def __init__(self, run: Chaos, connection: psycopg.Connection[Row]) -> None:
        self.run = run
        self.intents = {sent.request_id: sent.intent for sent in run.record.sent}
        self.holds: dict[str, Row] = {
            row["request_id"]: row
            for row in connection.execute("SELECT * FROM holds WHERE request_id LIKE 'chaos-%'").fetchall()
        }
        self.counters = connection.execute(
            "SELECT q.team_id, q.limit_micro, c.settled, c.held"
            " FROM quota_periods c JOIN quotas q ON q.id = c.quota_id"
        ).fetchall()
        everything = run.sandbox.journal(JOURNAL_LENGTH)
        assert len(everything) < JOURNAL_LENGTH, "the sandbox has forgotten the beginning"
        self.journal = [entry for entry in everything if entry["method"] == "POST"]

    def sends(self) -> Iterator[tuple[str, Row]]:
        """(request id, journal entry) of every paid call of the run that reached Pixapi."""
        for entry in self.journal:
            ident = header(entry, "x-request-id")
            assert ident is not None
            if ident in self.intents:
                yield ident, entry

    def charged(self) -> dict[str, str]:
        """The prompts of holds that were not given back, by request id."""
        kept = [ident for ident, hold in self.holds.items() if hold["state"] != "released"]
        return {ident: self.intents[ident].prompt for ident in kept}

    def contradicted(self, ident: str) -> bool:
        """Whether Pixapi first said that the task has ended well, which was lost on its way, and then that it failed
        and costs nothing."""
        hold = self.holds[ident]
        contradicts = "[fault:duplicate_terminal]" in self.intents[ident].prompt
        return contradicts and (hold["state"], hold["reason"]) == ("released", "the task failed")

    def story(self, prompt: str) -> str:
        """What became of an intent, in order of time."""
        events: list[tuple[float, str]] = []
        for sent in self.run.record.sent:
            if sent.intent.prompt == prompt:
                key = "with a key" if sent.intent.idempotency_key else "without a key"
                events.append((sent.at, f"{sent.request_id} to {sent.process} {key}"))
                if (hold := self.holds.get(sent.request_id)) is not None:
                    events.append(
                        (hold["placed_at"].timestamp(), f"{sent.request_id} held, now {hold['state']}")
                    )
        for ident, entry in self.sends():
            if self.intents[ident].prompt == prompt:
                events.append((entry["at"], f"{ident} at Pixapi: {entry['status']}"))
        events += [
            (float("inf"), f"{answer.status_code} {answer.headers['x-request-id']}")
            for intent, answer in self.run.record.paid
            if intent.prompt == prompt
        ]
        return "\n".join([prompt, *(f"  {at:.3f} {what}" for at, what in sorted(events))])


@pytest.mark.parametrize("seed", SEEDS)
async def test_chaos(seed: int, database_url: str) -> None:
    began = time.monotonic()
    address = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with (
        chaos(seed, database_url) as run,
        psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection,
    ):
        print(f"to repeat: make chaos SEEDS={seed} SECONDS={SECONDS:g}")
        await run.run(SECONDS)
        healed = heals(run)
        await settles(run, connection, database_url)
        books = Books(run, connection)
        print(summary(books), f"healed in {healed:.1f} s, all in {time.monotonic() - began:.1f} s")
        ledger_adds_up(books)
        nothing_is_paid_twice(books)
        every_send_is_accounted_for(books)
        answers_tell_the_truth(books)
        answers_have_the_contracts_shape(run)
        tasks_belong_to_their_team_and_go_forward(run)
        nothing_leaks(run)
        nothing_is_left_running(run)
    gc.collect()  # while those connections are forgiven


def heals(run: Chaos) -> float:
    """Every process does everything again, nobody having restarted the survivor; seconds until then."""
    began = time.monotonic()
    run.gateway.call("PUT", f"/teams/{run.teams[1]}/quotas/month", json={"limit": 100_000})
    for process in run.slots:
        for key in run.keys:
            with caller(process.base, key) as client:
                eventually(lambda client=client: works(client), HEALED_WITHIN, every=0.2)
                assert client.get("/readyz").is_success
    assert run.slots[0].child.poll() is None
    return time.monotonic() - began


def works(client: httpx.Client) -> bool:
    paid = client.post(SYNC, json=order("After the storm"))
    task = client.post(ASYNC, json=order("After the storm, later"))
    if not (paid.is_success and task.is_success):
        return False
    return client.get(f"/v1/tasks/{task.json()['id']}").is_success


async def settles(run: Chaos, connection: psycopg.Connection[Row], database_url: str) -> None:
    """Polls what is still open until only calls of killed processes are held, and lets these age."""
    died = {sent.request_id for sent in run.record.sent if sent.process in run.record.killed}

    def left() -> set[str]:
        rows = connection.execute(
            "SELECT request_id, task_id, team_id FROM holds WHERE state = 'held' ORDER BY placed_at DESC"
        ).fetchall()
        for row in rows[:20]:
            if row["task_id"] is not None:
                key = run.keys[run.teams.index(str(row["team_id"]))]
                with caller(run.slots[0].base, key) as client:
                    assert client.get(f"/v1/tasks/{row['task_id']}").is_success
        return {row["request_id"] for row in rows}

    eventually(lambda: left() <= died, HEALED_WITHIN, every=0.1)
    database = Database(database_url)
    await Aging(database, Ages(longest_call=0, task_max_age=3600, settle_unknown_after=3600)).once()
    await database.close()
    eventually(lambda: not left(), HEALED_WITHIN, every=0.1)  # tasks recorded by a process that is gone


def summary(books: Books) -> str:
    record = books.run.record
    states = Counter(hold["state"] for hold in books.holds.values())
    return (
        f"{len(record.sent)} paid requests {dict(Counter(a.status_code for _, a in record.paid))}, "
        f"{len(record.polls)} polls {dict(Counter(seen.answer.status_code for seen in record.polls))}, "
        f"holds {dict(states)}, {record.faults} faults, {len(record.killed)} kills;"
    )


def ledger_adds_up(books: Books) -> None:
    proof = books.run.gateway.call("GET", "/ledger/verify")
    assert (proof["ok"], proof["differences"]) == (True, [])
    for row in books.counters:
        assert row["settled"] + row["held"] <= row["limit_micro"]
    # Every price is a whole one and known, so what Pixapi billed lies between what is sure and what is possible.
    settled = sum(row["settled"] for row in books.counters)
    possible = settled + sum(row["held"] for row in books.counters)
    billed = sum(Decimal(str(books.run.sandbox.counters(one)["credits"])) for one in books.run.secrets)
    contradicted = sum(hold["quote"] for ident, hold in books.holds.items() if books.contradicted(ident))
    assert settled <= billed * MICRO <= possible + contradicted


def nothing_is_paid_twice(books: Books) -> None:
    executed = Counter(
        json.loads(entry["body_text"])["prompt"] for _, entry in books.sends() if entry["executed"]
    )
    assert [prompt for prompt, times in executed.items() if times > 1] == []
    charged = Counter(
        books.intents[ident].prompt for ident, hold in books.holds.items() if hold["state"] != "released"
    )
    assert [prompt for prompt, times in charged.items() if times > 1] == []


def every_send_is_accounted_for(books: Books) -> None:
    """No send without a hold, no execution given back, and a hold sent again only upon a definite refusal."""
    sends: dict[str, list[Row]] = defaultdict(list)
    for ident, entry in books.sends():
        sends[ident].append(entry)
    assert set() < set(sends) <= set(books.holds)
    assert {hold["state"] for hold in books.holds.values()} <= {"settled", "released", "unknown"}
    for ident, entries in sends.items():
        if any(entry["executed"] for entry in entries):
            assert books.holds[ident]["state"] in ("settled", "unknown") or books.contradicted(ident), ident
        assert sum(entry["status"] in (0, 200) for entry in entries) <= 1, ident


def answers_tell_the_truth(books: Books) -> None:
    """What one intent was answered never contradicts itself or its hold."""
    answered: dict[str, set[bytes]] = defaultdict(set)
    for intent, answer in books.run.record.paid:
        if answer.is_success:
            answered[intent.prompt].add(answer.content)
    executed = {
        books.intents[ident].prompt
        for ident, hold in books.holds.items()
        if hold["state"] != "released" or books.contradicted(ident)
    }
    for prompt, bodies in answered.items():
        assert len(bodies) == 1, prompt
        assert prompt in executed, prompt


def answers_have_the_contracts_shape(run: Chaos) -> None:
    for intent, answer in run.record.paid:
        if answer.is_success:
            continue
        status = answer.status_code
        if status == 500:  # Pixapi's own, which it was told to give
            assert "status=500" in intent.prompt
            assert error_of(answer, 500, answer.json()["error"]["type"])["reason"] != "internal_error"
        elif status == 400:
            assert "status=400" in intent.prompt
            error_of(answer, 400, answer.json()["error"]["type"])
        else:
            well_formed(answer)
    for seen in run.record.polls:
        if not seen.answer.is_success:
            well_formed(seen.answer)


def well_formed(answer: httpx.Response) -> None:
    kind = answer.json()["error"]["type"]
    assert kind in KINDS[answer.status_code], answer.text
    error_of(answer, answer.status_code, kind)


def tasks_belong_to_their_team_and_go_forward(run: Chaos) -> None:
    latest: dict[tuple[int, str], str] = {}
    for seen in run.record.polls:
        if seen.owner != seen.client % len(run.keys):
            error_of(seen.answer, 404, "not_found_error") if seen.answer.status_code == 404 else well_formed(
                seen.answer
            )
            assert not seen.answer.is_success, seen.task
            continue
        assert seen.answer.status_code != 404, seen.task
        if not seen.answer.is_success:
            continue
        assert seen.answer.json()["id"] == seen.task
        status = seen.answer.json()["status"]
        before = latest.get((seen.client, seen.task), status)
        assert RANK[status] >= RANK[before], f"{seen.task}: {before}, then {status}"
        assert RANK[before] < 2 or status == before, f"{seen.task}: {before}, then {status}"
        latest[seen.client, seen.task] = status


def nothing_leaks(run: Chaos) -> None:
    record = run.record
    answers = [answer for _, answer in record.paid] + [seen.answer for seen in record.polls]
    texts = [f"{answer.headers.raw!r}{answer.text}" for answer in answers]
    texts += record.logs + [process.text() for process in run.slots]
    canaries = {part for secret in run.secrets for part in runs_of(secret)} | set(run.keys)
    everything = "\n".join(texts)
    assert [canary for canary in canaries if canary in everything] == []
    assert "Traceback" not in "".join(answer.text for answer in answers)


def nothing_is_left_running(run: Chaos) -> None:
    headers = dict(run.gateway.admin.headers)
    for process in run.slots:

        def in_flight(base: str = process.base) -> float:
            text = httpx.get(f"{base}/metrics", headers=headers, trust_env=False, timeout=10).text
            found = [line for line in text.splitlines() if line.startswith("gateway_paid_calls_in_flight ")]
            return float(found[0].rsplit(" ", 1)[1])

        eventually(lambda in_flight=in_flight: in_flight() == 0, 15)
