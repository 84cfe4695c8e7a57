"""Tasks no client ever polls settle all the same: beside broken ones, after a kill, with two processes.

The tasks that take long are all submitted first; each test then waits for its own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import MICRO, VIDEOS, HoldRow, Rig, rig
from tests.e2e.harness import eventually

PROMISED = 30.0  # seconds from a task's end to its settlement
VIDEO = {"model": "veo", "duration": 8}  # costs 8 credits, and may hold more
SANDBOX_SECONDS = 0.5  # a video's duration, at the speed of these tests
HASTY = {"GATEWAY_UPSTREAM__READ_TIMEOUT": "1"}


@dataclass(frozen=True)
class Submitted:
    """A video task, its hold's request id, and when (monotonic) it was submitted."""

    id: str
    request: str
    at: float


def submit(here: Rig, prompt: str = "A wave") -> Submitted:
    answer = here.client.post(VIDEOS, json={**VIDEO, "prompt": prompt})
    assert answer.status_code == 200, answer.text
    return Submitted(answer.json()["id"], answer.headers["x-request-id"], time.monotonic())


def concluded(here: Rig, task: Submitted, seconds: float = PROMISED) -> HoldRow:
    """The task's hold once it has ended."""

    def check() -> HoldRow | None:
        hold = here.held(task.request)
        return hold if hold.state in ("settled", "released") else None

    found: HoldRow = eventually(check, seconds, every=0.1)
    return found


def entries(here: Rig, *tasks: Submitted) -> dict[str, int]:
    """How many ledger entries of each kind the tasks' holds have."""
    rows = here.rows(
        "SELECT kind, count(*) AS n FROM ledger_entries e JOIN holds h ON h.id = e.hold_id"
        " WHERE h.request_id = ANY(%s) GROUP BY kind",
        [task.request for task in tasks],
    )
    return {row["kind"]: row["n"] for row in rows}


def metric(here: Rig, name: str, **labels: str) -> float:
    """A metric of the first process; 0 while it has no such series."""
    page = here.gateway.admin.get("/metrics").raise_for_status().text
    wanted = name + (
        "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
    )
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(wanted + " "))


def lasted(here: Rig, task: Submitted) -> float:
    """Seconds from the task's submit until its end was written down."""
    (row,) = here.rows(
        "SELECT extract(epoch FROM ended_at - created_at) AS s FROM tasks WHERE id = %s", task.id
    )
    return float(row["s"])


BROKEN = {
    "stuck": "[fault:stuck]",
    "hang": "[fault:poll_hang=1]",
    "always_hanging": "[fault:poll_hang]",
    "errors": "[fault:poll_status=500:2]",
    "not_found": "[fault:poll_404_first=1]",
    "throttled": "[fault:poll_status=429:1 retry_after=2]",
    "null": "[fault:cost=null]",
    "negative": "[fault:cost=-1]",
    "failed": "[fault:task_fail]",
    "failed_with_cost": "[fault:fail_with_cost=0.5]",
    "dearer": "[fault:cost=99.5]",
    "odd_word": "[fault:odd_status=COMPLETED duration=3]",
}


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(module_database_url, redis_url, HASTY) as found:
        yield found


@pytest.fixture(scope="module")
def broken(here: Rig) -> dict[str, Submitted]:
    """Every kind of broken task."""
    return {name: submit(here, f"A wave {prompt}") for name, prompt in BROKEN.items()}


def test_it_settles_soon_after_its_end_beside_broken_ones(here: Rig, broken: dict[str, Submitted]) -> None:
    tasks = [submit(here) for _ in range(5)]
    waits = []
    for task in tasks:
        hold = concluded(here, task)
        assert (hold.state, hold.settled, hold.estimated, hold.flags) == ("settled", 8 * MICRO, False, [])
        waits.append(lasted(here, task) - SANDBOX_SECONDS)
    print(f"settled {min(waits):.1f} to {max(waits):.1f} s after their end")
    assert max(waits) < 15
    assert metric(here, "gateway_tasks_settled_total", by="reconciler") >= len(tasks)
    assert metric(here, "gateway_reconciler_stretched") == 1


@pytest.mark.parametrize("name", ["null", "negative"])
def test_odd_costs_settle_at_the_quote_flagged(here: Rig, broken: dict[str, Submitted], name: str) -> None:
    hold = concluded(here, broken[name])
    assert (hold.state, hold.settled, hold.estimated) == ("settled", hold.quote, True)
    assert hold.flags == ["odd_cost"]
    assert metric(here, "gateway_odd_costs_total") >= 1


def test_other_ends(here: Rig, broken: dict[str, Submitted]) -> None:
    failed = concluded(here, broken["failed"])
    assert (failed.state, failed.settled) == ("released", None)
    costly = concluded(here, broken["failed_with_cost"])
    assert (costly.state, costly.settled) == ("settled", MICRO // 2)
    dearer = concluded(here, broken["dearer"])
    assert (dearer.settled, dearer.flags) == (99_500_000, ["overrun"])
    assert concluded(here, broken["odd_word"]).settled == 8 * MICRO


def test_what_never_ends_stays_held(here: Rig, broken: dict[str, Submitted]) -> None:
    for name in ("stuck", "always_hanging"):
        assert here.held(broken[name].request).state == "held"
        task = broken[name].id
        eventually(lambda task=task: here.sandbox.reads(task) >= 1)
        here.sandbox.end_task(task)
    assert concluded(here, broken["stuck"]).state == "settled"


@pytest.mark.long
def test_two_processes_read_and_settle_as_one(here: Rig) -> None:
    with harness.beside(here.gateway.environment):
        tasks = [submit(here, "A wave [fault:duration=4]") for _ in range(8)]
        for task in tasks:
            assert concluded(here, task).settled == 8 * MICRO
    assert entries(here, *tasks) == {"place": 8, "settle": 8}
    reads = [here.sandbox.reads(task.id) for task in tasks]
    waits = [round(lasted(here, task) - 4, 1) for task in tasks]
    print(f"reads of a task of 4 s with two processes: {reads}, settled after {waits}")
    assert max(reads) <= 4
    assert max(waits) < 15


def test_a_poll_and_the_reconciler_settle_once(here: Rig) -> None:
    task = submit(here, "A wave [fault:duration=2.5]")
    eventually(lambda: here.client.get(f"/v1/tasks/{task.id}").json()["status"] == "completed", 20)
    assert concluded(here, task).settled == 8 * MICRO
    assert entries(here, task) == {"place": 1, "settle": 1}


@pytest.mark.parametrize("name", ["errors", "not_found", "throttled", "hang"])
def test_reads_that_fail_are_no_verdict(here: Rig, broken: dict[str, Submitted], name: str) -> None:
    task = broken[name]
    hold = concluded(here, task)
    print(f"{name}: settled {lasted(here, task):.1f} s after the submit")
    assert (hold.state, hold.settled, hold.flags) == ("settled", 8 * MICRO, [])


def lease_ends(here: Rig, task: Submitted) -> None:
    """What the dead process had claimed comes back after its read's time-out and ten seconds: these pass now."""
    (row,) = here.rows(
        "SELECT extract(epoch FROM leased_until - now()) AS s FROM tasks WHERE id = %s", task.id
    )
    assert 0 < row["s"] <= 20
    here.rows("UPDATE tasks SET leased_until = now() WHERE id = %s RETURNING id", task.id)


@pytest.mark.long
def test_killed_in_the_middle_and_started_again(database_url: str, redis_url: str) -> None:
    with rig(database_url, redis_url) as here:
        task = submit(here, "A wave [fault:duration=4]")
        hanging = submit(here, "A wave [fault:poll_hang=1]")  # being read when the process dies
        eventually(lambda: here.sandbox.reads(task.id) and here.sandbox.reads(hanging.id), 10)
        code = here.gateway.process.stop(signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert here.held(task.request).state == "held"
        lease_ends(here, hanging)
        with harness.beside(here.gateway.environment) as again:
            assert httpx.get(f"{again.base}/healthz", trust_env=False).status_code == 200
            assert concluded(here, task).settled == 8 * MICRO
            assert concluded(here, hanging).settled == 8 * MICRO
            print(f"settled {lasted(here, task) - 4:.1f} s after its end")
            print(f"the one that was being read: {lasted(here, hanging):.1f} s after its submit")
        kinds: Any = entries(here, task, hanging)
        assert kinds == {"place": 2, "settle": 2}
