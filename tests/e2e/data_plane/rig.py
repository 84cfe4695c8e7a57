"""A gateway in front of a sandbox, and what an examiner asks of both and of the database.

Every request carries its request id to Pixapi and into its hold, so each test finds its own traces by the id its
answer came with, whatever else has happened on the same gateway.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import dict_row
from sqlalchemy import make_url

from tests.e2e import harness
from tests.e2e.harness import Gateway, Process, eventually

SYNC = "/v1/images/generations"
EDITS = "/v1/images/edits"
ASYNC = "/v1/async/images/generations"
ASYNC_EDITS = "/v1/async/images/edits"
VIDEOS = "/v1/async/videos/generations"
PAID = (SYNC, EDITS, ASYNC, ASYNC_EDITS, VIDEOS)
MODEL = "gemini-2.5-flash-image"  # 2 credits an image, alias nano-banana
MICRO = 1_000_000

RETRY_HINTS = frozenset({402, 408, 409, 429, *range(500, 600)})
_numbers = itertools.count(1)


def order(prompt: str = "A cup", **fields: Any) -> dict[str, Any]:
    """The JSON of a small image order."""
    return {"model": MODEL, "prompt": prompt, **fields}


@dataclass(frozen=True, slots=True)
class HoldRow:
    """A hold as it is stored; credits in millionths."""

    id: UUID
    state: str
    model: str
    operation: str
    quote: int
    settled: int | None
    estimated: bool
    flags: list[str]
    reason: str | None
    task_id: str | None


@dataclass
class Sandbox:
    """The simulated Pixapi under test's gateway: what it saw, and what it is told to do wrong."""

    process: Process
    control: httpx.Client = field(repr=False)

    def sent(self, request_id: str) -> list[dict[str, Any]]:
        """The requests that reached it under this request id, oldest first."""
        return [entry for entry in self.journal(1000) if header(entry, "x-request-id") == request_id]

    def journal(self, newest: int = 100) -> list[dict[str, Any]]:
        """The newest requests, oldest first."""
        found: list[dict[str, Any]] = self._get(f"/sandbox/journal?limit={newest}")["data"]
        return found

    def reads(self, task_id: str) -> int:
        """How often this task was asked for."""
        path = f"/v1/tasks/{task_id}"
        return sum(entry["path"] == path for entry in self.journal(1000))

    def counters(self, secret: str) -> dict[str, Any]:
        """requests, executions, reads and credits of one key."""
        digest = digest_of(secret)
        none = {"requests": 0, "executions": 0, "reads": 0, "credits": 0}
        found = (one for one in self._get("/sandbox/counters")["data"] if one["sha256"] == digest)
        return next(found, none)

    def arm(self, marker: str, **where: Any) -> None:
        """Faults for the next requests that match."""
        self._post("/sandbox/faults", {"marker": marker, **where})

    def arm_key(self, secret: str, marker: str, **where: Any) -> None:
        """Faults for every paid call with this key from now on."""
        self.arm(marker, key=digest_of(secret), times=None, **where)

    def disarm(self) -> None:
        assert self.control.delete("/sandbox/faults").is_success

    def account(self, name: str, **fields: Any) -> None:
        """Sets `credits` and `models` of an account."""
        self._post(f"/sandbox/accounts/{name}", fields)

    def end_task(self, task_id: str) -> None:
        self._post(f"/sandbox/tasks/{task_id}/end", {})

    def _get(self, path: str) -> Any:
        return self.control.get(path).raise_for_status().json()

    def _post(self, path: str, document: Any) -> None:
        self.control.post(path, json=document).raise_for_status()


@dataclass
class Rig:
    """Gateway, sandbox and database together, with a team, a client of its key and one upstream key."""

    gateway: Gateway
    sandbox: Sandbox
    database: psycopg.Connection[dict[str, Any]]
    client: httpx.Client
    key: str
    account: str  # Pixapi's, which `secret` belongs to
    secret: str
    team: str

    def hold(self, answer: httpx.Response | str) -> HoldRow | None:
        """The hold placed under this answer's request id (or under this id), if there is one."""
        rows = self.rows(
            "SELECT id, state, model, operation, quote, settled, estimated, flags, reason, task_id"
            " FROM holds WHERE request_id = %s",
            request_id_of(answer),
        )
        assert len(rows) <= 1, rows
        return HoldRow(**rows[0]) if rows else None

    def held(self, answer: httpx.Response | str) -> HoldRow:
        """The hold, which must be there."""
        found = self.hold(answer)
        assert found is not None, f"no hold of {request_id_of(answer)}"
        return found

    def sent(self, answer: httpx.Response | str) -> list[dict[str, Any]]:
        """What reached Pixapi under this answer's request id."""
        return self.sandbox.sent(request_id_of(answer))

    def untouched(self, answer: httpx.Response | str) -> bool:
        """Whether nothing was sent and nothing is held for it."""
        return not self.sent(answer) and self.hold(answer) is None

    def attempts(self, answer: httpx.Response | str) -> list[dict[str, Any]]:
        """The recorded sends of a call, in order."""
        return self.rows(
            "SELECT a.*, k.label FROM attempts a JOIN upstream_keys k ON k.id = a.upstream_key_id"
            " WHERE hold_id = %s ORDER BY number",
            self.held(answer).id,
        )

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return self.database.execute(query.encode(), values).fetchall()

    def submit(self, prompt: str = "A cup", path: str = ASYNC, **fields: Any) -> str:
        """An accepted task's id."""
        answer = self.client.post(path, json=order(prompt, **fields))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def caller(self, key: str | None = None) -> httpx.Client:
        """An HTTP client of this team key, or of nobody."""
        return caller(self.gateway.base, key)

    def new_team(self, **fields: Any) -> str:
        """The slug of a new team without a quota."""
        return str(self.gateway.team(f"Team {next(_numbers)}", unlimited=True, **fields)["slug"])


@contextlib.contextmanager
def rig(
    database_url: str, redis_url: str, environment: Mapping[str, str] | None = None, *flags: str
) -> Iterator[Rig]:
    """A fresh pair of processes on a migrated database; `flags` are the sandbox's."""
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(harness.sandbox(*flags))
        control = stack.enter_context(caller(process.base))
        gateway = stack.enter_context(harness.gateway(database_url, redis_url, process.base, environment))
        database = stack.enter_context(psycopg.connect(plain, autocommit=True, row_factory=dict_row))
        team = gateway.team(f"Team {next(_numbers)}")["slug"]
        key = gateway.key(team)
        account = new_account()
        secret = new_secret(account)
        gateway.upstream_key(secret, "first", account=account)
        client = stack.enter_context(caller(gateway.base, key))
        client.event_hooks = {"response": [_carries_id]}
        yield Rig(gateway, Sandbox(process, control), database, client, key, account, secret, team)


def new_account() -> str:
    """The name of a Pixapi account nobody else uses."""
    return f"acct-{os.getpid()}-{next(_numbers)}"


def new_secret(account: str) -> str:
    """A Pixapi key of this account; its tail is found nowhere by chance."""
    tail = hashlib.sha256(f"{account} {next(_numbers)}".encode()).hexdigest()[:32]
    return f"sk_{account}_{tail}"


def runs_of(secret: str) -> set[str]:
    """Every run of eight characters of a key's secret part; what is before it, accounts and ids, is no secret."""
    tail = secret.rpartition("_")[2]
    return {tail[at : at + 8] for at in range(len(tail) - 7)}


def digest_of(secret: str) -> str:
    """How the sandbox names a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def header(entry: Mapping[str, Any], name: str) -> str | None:
    """The first value of a header in a journal entry."""
    return next((value for key, value in entry["headers"] if key == name), None)


def request_id_of(answer: httpx.Response | str) -> str:
    return answer if isinstance(answer, str) else answer.headers["x-request-id"]


def error_of(answer: httpx.Response, status: int, kind: str, reason: str | None = None) -> dict[str, Any]:
    """Checks that an answer is this failure in exactly Pixapi's shape; the error object."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
    document = answer.json()
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert set(error) == {"code", "message", "type", "reason", "request_id"}
    assert (error["code"], error["type"]) == (status, kind)
    assert isinstance(error["code"], int)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert 1 <= len(error["message"]) <= 1000
    if reason is not None:
        assert error["reason"] == reason
    if status in RETRY_HINTS:
        assert answer.headers.get_list("x-should-retry") in (["true"], ["false"])
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    return error


def ended(rig: Rig, answer: httpx.Response | str, state: str) -> HoldRow:
    """The hold once it is in this state; fails when that takes long."""

    def check() -> HoldRow | None:
        found = rig.hold(answer)
        return found if found is not None and found.state == state else None

    found: HoldRow = eventually(check)
    return found


def caller(base: str, key: str | None = None) -> httpx.Client:
    """An HTTP client of a gateway or sandbox. A context manager that closes it."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    # Nothing here speaks TLS, and reading the certificate authorities takes longer than most tests.
    return httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False, verify=False)


def _carries_id(answer: httpx.Response) -> None:
    assert len(answer.headers.get_list("x-request-id")) == 1, answer.headers
