"""The admin API over HTTP, in this process, on a migrated database the tests of one module share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.access.admin_sessions import AdminSessions
from gateway.access.admin_tokens import AdminTokens, issue
from gateway.access.key_format import Peppers
from gateway.access.session_rules import SessionRules
from gateway.admin.api.http import admin_routes
from gateway.admin.api.route import AdminApi, Topic
from gateway.admin.callers import Callers
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool.vault import Vault
from gateway.telemetry import Metrics

BOOTSTRAP = "bootstrap-of-the-admin-tests-0123456789"
PEPPERS = Peppers(["pepper-of-the-admin-tests-0123456789"])
VAULT = Vault(["master-key-of-the-admin-tests-0123456789"])
RULES = SessionRules(idle=1800, absolute=28_800)


@dataclass
class MovableClock:
    """The wall clock, moved by hand."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self.now().timestamp()


@dataclass
class Heard:
    """`Changed` that remembers."""

    news: list[tuple[str, str]] = field(default_factory=list)

    async def announce(self, topic: Topic, ident: str) -> None:
        self.news.append((topic, ident))


@dataclass
class Admin:
    """A client with the bootstrap token, and what it talks to."""

    http: httpx.AsyncClient
    viewer: dict[str, str]
    database: Database
    clock: MovableClock
    heard: Heard
    tokens: AdminTokens

    async def call(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        return await self.http.request(method, f"/admin/api{path}", json=body, params=query)

    async def ok(self, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
        """The answer's object; anything but a success fails the test."""
        answer = await self.call(method, path, body, **query)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(
        self, method: str, path: str, body: object = None, **query: str
    ) -> tuple[int, str, str]:
        """Status, reason and message of the error this call gets."""
        answer = await self.call(method, path, body, **query)
        assert not answer.is_success, answer.text
        error = answer.json()["error"]
        assert error["code"] == answer.status_code
        return answer.status_code, error["reason"], error["message"]

    async def team(self, name: str, **fields: object) -> dict[str, Any]:
        """A new team, unlimited unless a quota is given."""
        body = {"name": name, **fields} if "quota" in fields else {"name": name, "unlimited": True, **fields}
        return await self.ok("POST", "/teams", body)

    async def key(self, team: str, **fields: object) -> dict[str, Any]:
        """A new key of the team."""
        return await self.ok("POST", f"/teams/{team}/keys", {"name": "a key", **fields})

    async def audit(self, **narrow: str) -> list[dict[str, Any]]:
        """Audit entries, newest first."""
        found: list[dict[str, Any]] = (await self.ok("GET", "/audit", limit="200", **narrow))["data"]
        return found


@pytest.fixture
async def admin(module_database_url: str) -> AsyncIterator[Admin]:
    database = Database(module_database_url)
    clock, heard = MovableClock(), Heard()
    api = AdminApi(
        database=database, peppers=PEPPERS, vault=VAULT, clock=clock, changed=heard, sessions=RULES
    )
    tokens = AdminTokens(database, PEPPERS, BOOTSTRAP)
    async with database.transaction() as connection:
        viewer = await issue(connection, "test", PEPPERS, "a viewer", "viewer")
    callers = Callers(tokens, AdminSessions(database, RULES), Metrics(), None)
    app = Starlette(routes=admin_routes(api, callers), exception_handlers={GatewayError: _render})
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    headers = {"authorization": f"Bearer {BOOTSTRAP}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as http:
        authorization = {"authorization": f"Bearer {viewer.secret}"}
        yield Admin(http, authorization, database, clock, heard, tokens)
    await database.close()


async def _render(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers, body = errors.render(error, "test-request")
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, error.status, named)
