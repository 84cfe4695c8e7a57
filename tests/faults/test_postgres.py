"""Postgres breaks under a served gateway: nothing is sent that is not held, nothing that was answered is lost, a paid
call hears within five seconds, and all of it mends by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from gateway.credits.ledger import ON_ITS_WAY_SECONDS
from gateway.server.workers import OVERDUE_SECONDS
from tests.e2e.data_plane.rig import ASYNC, MICRO, SYNC, Rig, caller, ended, error_of, order, rig
from tests.e2e.harness import eventually
from tests.faults.proxy import ProxyThread, Target, proxy_thread

WITHIN = 5.0
SLACK = 0.7  # this machine's own
HEALED = 8.0
LOCK_SECONDS = 1.0  # `database.lock_timeout`
SETTINGS = {"GATEWAY_DATABASE__POOL_SIZE": "3", "GATEWAY_CACHE__TASK_UNFINISHED": "0.05"}

_numbers = itertools.count(1)

pytestmark = pytest.mark.skipif(
    "PXG_CHAOS_SEEDS" not in os.environ, reason="Postgres as it fails is tried by: make chaos"
)


@dataclass(frozen=True)
class Timed:
    """An answer, and the seconds it took."""

    answer: httpx.Response
    seconds: float


@dataclass(frozen=True)
class Team:
    """A team with a quota; its key is known to the gateway since this test began."""

    id: str
    client: httpx.Client

    def post(self, path: str = SYNC, prompt: str = "A cup", ident: str | None = None) -> Timed:
        headers = {} if ident is None else {"x-request-id": ident}
        began = time.monotonic()
        answer = self.client.post(path, json=order(prompt), headers=headers)
        return Timed(answer, time.monotonic() - began)

    def get(self, path: str) -> Timed:
        began = time.monotonic()
        return Timed(self.client.get(path), time.monotonic() - began)


@dataclass(frozen=True)
class Faulty:
    """A gateway whose Postgres is behind `proxy`. `rig.database` is connected past it, to `address`."""

    rig: Rig
    proxy: ProxyThread
    address: str

    @contextlib.contextmanager
    def team(self) -> Iterator[Team]:
        made = self.rig.gateway.team(f"Faulty {next(_numbers)}", quota={"period": "month", "limit": 10_000})
        self.rig.gateway.call("PATCH", f"/teams/{made['slug']}", json={"requests_per_minute": 100_000})
        with caller(self.rig.gateway.base, self.rig.gateway.key(made["slug"])) as client:
            found = Team(made["id"], client)
            assert found.post().answer.status_code == 200
            yield found

    def finished_task(self, team: Team) -> str:
        """The path of a task that has ended, and was polled since."""
        task = team.post(ASYNC, "[fault:duration=0.1]").answer.raise_for_status().json()["id"]
        path = f"/v1/tasks/{task}"
        eventually(lambda: team.get(path).answer.json()["status"] == "completed", every=0.1)
        return path

    def status(self, path: str) -> int:
        return httpx.get(f"{self.rig.gateway.base}{path}", trust_env=False, timeout=10).status_code

    def untouched(self, found: Timed) -> None:
        """A 503 in time that may be repeated, for which nothing was sent."""
        error_of(found.answer, 503, "dependency_unavailable")
        assert found.answer.headers["x-should-retry"] == "true"
        assert found.seconds < WITHIN, found.seconds
        assert not self.rig.sent(found.answer)

    def heals(self, team: Team) -> None:
        """Works again soon, nothing stays held, and the books are in order."""
        eventually(lambda: team.post().answer.status_code == 200, HEALED, every=0.1)
        eventually(lambda: self.status("/readyz") == 200, HEALED, every=0.1)
        eventually(lambda: not self.rig.rows("SELECT id FROM holds WHERE state <> ALL (%s)", ENDED), HEALED)
        proof = self.rig.gateway.call("GET", "/ledger/verify")
        assert proof["ok"], proof


ENDED = ["settled", "released"]


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Faulty]:
    address = make_url(module_database_url)
    with proxy_thread(socket_of(address)) as proxy:
        settings = SETTINGS | {"GATEWAY_DATABASE__URL": through(address, proxy.port)}
        with rig(module_database_url, redis_url, settings) as found:
            direct = address.set(drivername="postgresql").render_as_string(hide_password=False)
            yield Faulty(found, proxy, direct)


def test_without_postgres_nothing_is_sent_and_finished_tasks_are_served(here: Faulty) -> None:
    with here.team() as team:
        task = here.finished_task(team)
        here.proxy.kill()
        try:
            for path in (SYNC, ASYNC, SYNC):
                found = team.post(path)
                here.untouched(found)
                assert here.rig.hold(found.answer) is None
            assert team.get(task).answer.json()["status"] == "completed"
            assert (here.status("/healthz"), here.status("/readyz")) == (200, 503)
        finally:
            here.proxy.listen()
        here.heals(team)


def test_silent_postgres_is_answered_for_within_five_seconds_and_left_for_a_new_connection(
    here: Faulty,
) -> None:
    with here.team() as team, ThreadPoolExecutor(12) as threads:
        task = here.finished_task(team)
        here.proxy.proxy.blackhole = True
        try:
            paths = [SYNC, ASYNC] * 5
            calls = [threads.submit(team.post, path) for path in paths]
            ready = threads.submit(here.status, "/readyz")
            assert here.status("/healthz") == 200
            while not all(call.done() for call in calls):
                polled = team.get(task)
                assert polled.answer.status_code == 200
                assert polled.seconds < 1
            for call in calls:
                here.untouched(call.result())
            assert ready.result() == 503
        finally:
            # What vanished stays so: a connection that was waiting then waits for ever.
            here.proxy.proxy.blackhole = False
        here.heals(team)


def test_postgres_that_goes_between_dispatch_and_settlement_withholds_no_answer(here: Faulty) -> None:
    paths = {"cut-sync": SYNC, "cut-async": ASYNC}
    with here.team() as team, ThreadPoolExecutor(2) as threads:
        calls = {
            ident: threads.submit(team.post, path, "[fault:delay=0.5]", ident)
            for ident, path in paths.items()
        }
        eventually(lambda: all(here.rig.sent(ident) for ident in paths))
        here.proxy.kill()
        try:
            for call in calls.values():
                assert call.result().answer.status_code == 200
                assert call.result().seconds < 0.5 + WITHIN + SLACK
            assert {here.rig.held(ident).state for ident in paths} == {"held"}
            poll = f"/v1/tasks/{calls['cut-async'].result().answer.json()['id']}"
            error_of(team.get(poll).answer, 503, "dependency_unavailable")
        finally:
            here.proxy.listen()
        eventually(lambda: after_503(team.get(poll).answer) == "completed", HEALED, every=0.2)
        for ident in paths:
            assert ended(here.rig, ident, "settled").settled == 2 * MICRO
            assert len(here.rig.sent(ident)) == 1
        here.heals(team)


def after_503(answer: httpx.Response) -> str:
    """A task's status; it may not be written down yet, but nobody may say that there is none."""
    assert answer.status_code in (200, 503), answer.text
    return str(answer.json().get("status"))


@pytest.mark.parametrize(
    ("statement", "path"),
    [("gateway_place_calls", SYNC), ("gateway_end", SYNC), ("gateway_bind", ASYNC), ("COMMIT", ASYNC)],
)
def test_lost_acknowledgement_of_a_commit_holds_and_charges_once(
    here: Faulty, statement: str, path: str
) -> None:
    with here.team() as team:
        lost = here.proxy.proxy.replies_lost
        here.proxy.proxy.lose_reply_to = statement.encode()
        found = team.post(path, "[fault:duration=0.1]" if path == ASYNC else "A cup").answer
        assert found.status_code == 200, found.text
        if path == ASYNC:
            poll = f"/v1/tasks/{found.json()['id']}"
            eventually(lambda: after_503(team.get(poll).answer) == "completed", HEALED, every=0.1)
        eventually(lambda: here.proxy.proxy.replies_lost == lost + 1)
        assert ended(here.rig, found, "settled").settled == 2 * MICRO
        assert len(here.rig.sent(found)) == 1
        here.heals(team)
        calls = [row["settled"] for row in here.rig.rows(HOLDS_OF, team.id)]
        assert here.rig.rows(COUNTER_OF, team.id) == [{"settled": sum(calls), "held": 0}]


@contextlib.contextmanager
def standby_gone(servers: tuple[str, str]) -> Iterator[None]:
    """Commits wait for a synchronous standby that is not there."""
    admin = make_url(servers[0]).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        eventually(
            lambda: connection.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",), every=0.05
        )
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


def test_a_commit_that_waits_for_its_standby_leaves_no_hold(here: Faulty, servers: tuple[str, str]) -> None:
    with here.team() as team:
        with standby_gone(servers):
            found = team.post()
            here.untouched(found)
            time.sleep(ON_ITS_WAY_SECONDS + 3)  # longer than the release is tried for no reason
        eventually(lambda: (hold := here.rig.hold(found.answer)) and hold.state == "released", HEALED)
        here.heals(team)


def test_a_process_that_cannot_write_ends_in_time(
    database_url: str, redis_url: str, servers: tuple[str, str]
) -> None:
    settings = {"GATEWAY_SERVER__DRAIN_SECONDS": "2"}
    with rig(database_url, redis_url, settings) as ending, ThreadPoolExecutor(1) as threads:
        headers = {"x-request-id": "cut-off"}
        call = threads.submit(ending.client.post, SYNC, json=order("[fault:hang]"), headers=headers)
        eventually(lambda: ending.sent("cut-off"))
        with standby_gone(servers):
            began = time.monotonic()
            assert ending.gateway.process.stop() == 0
            assert time.monotonic() - began < 2 + OVERDUE_SECONDS
        error_of(call.result(), 502, "upstream_outcome_unknown")


def test_a_locked_team_waits_alone(here: Faulty) -> None:
    with here.team() as locked, here.team() as other, ThreadPoolExecutor(8) as threads:
        with psycopg.connect(here.address) as holder:
            holder.execute(f"{COUNTER_OF} FOR UPDATE OF c".encode(), [locked.id])
            until = time.monotonic() + 4
            first = threads.submit(locked.post)
            beside = other.post()
            assert (beside.answer.status_code, beside.seconds < LOCK_SECONDS / 2) == (200, True), beside
            here.untouched(first.result())
            assert LOCK_SECONDS - 0.1 < first.result().seconds < LOCK_SECONDS + SLACK
            while time.monotonic() < until:
                waiting = threads.submit(locked.post)
                others = [threads.submit(other.post).result() for _ in range(5)]
                assert Counter(one.answer.status_code for one in others) == {200: 5}
                assert max(one.seconds for one in others) < LOCK_SECONDS / 2
                here.untouched(waiting.result())
                assert waiting.result().seconds < LOCK_SECONDS + SLACK
        assert locked.post().answer.status_code == 200
        here.heals(locked)


def test_an_exhausted_pool_refuses_within_five_seconds(here: Faulty) -> None:
    with here.team() as team, ThreadPoolExecutor(24) as threads:
        task = here.finished_task(team)
        here.proxy.delay(1.1)  # three connections, each slower than the wait for one
        try:
            asked: list[Callable[[], Timed]] = [lambda: team.get("/gateway/tasks"), team.post] * 6
            found = list(threads.map(lambda ask: ask(), asked))
            assert team.get(task).answer.status_code == 200
        finally:
            here.proxy.delay(0)
        refused = [one for one in found if one.answer.status_code == 503]
        assert len(refused) >= 3
        for one in refused:
            here.untouched(one)
        assert {one.answer.status_code for one in found} <= {200, 503}
        here.heals(team)


COUNTER_OF = """
SELECT c.settled, c.held FROM quota_periods c JOIN quotas q ON q.id = c.quota_id WHERE q.team_id = %s
"""
HOLDS_OF = "SELECT settled FROM holds WHERE team_id = %s AND state = 'settled'"


def socket_of(address: URL) -> Target:
    """Where the server of this database listens."""
    folder, port = address.query.get("host"), address.query.get("port", address.port or 5432)
    if isinstance(folder, str) and folder.startswith("/"):
        return f"{folder}/.s.PGSQL.{port}"
    assert address.host is not None
    return address.host, address.port or 5432


def through(address: URL, port: int) -> str:
    """The URL of this database by way of a proxy on this machine."""
    query = {name: value for name, value in address.query.items() if name not in ("host", "port")}
    return address.set(host="127.0.0.1", port=port, query=query).render_as_string(hide_password=False)
