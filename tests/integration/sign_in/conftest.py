"""The whole application in this process, on a migrated database the tests of one module share. No Redis, no Pixapi."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.access.admin_tokens import IssuedToken, Role, issue
from gateway.access.key_format import Peppers
from gateway.app import build_app
from gateway.composition import build
from gateway.runtime import Runtime
from gateway.settings import load

PEPPER = "kT5vN8xQ2mB7rY4wL9hD3cJ6gP1sZ0aU"
BOOTSTRAP = "bW7yX4zV1uT8sR5qP2oN9mL6kJ3iH0gF"
CONFIG = Path(__file__).parents[3] / "config"
Client = Callable[..., httpx.AsyncClient]


@dataclass
class Site:
    """One process of the gateway; `browser` opens a client that keeps cookies and follows nothing."""

    runtime: Runtime
    app: Starlette
    browser: Client

    async def token(self, role: Role, name: str = "a token") -> IssuedToken:
        async with self.runtime.database.transaction() as connection:
            return await issue(connection, "test", Peppers([PEPPER]), name, role)

    async def signed_in(self, token: str, address: str = "192.0.2.1") -> httpx.AsyncClient:
        browser = self.browser(address)
        answer = await browser.post("/admin/login", data={"token": token})
        assert answer.status_code == 303, answer.text
        return browser

    async def sql(self, statement: str, **values: Any) -> Any:
        async with self.runtime.database.transaction() as connection:
            return await connection.exec_driver_sql(statement, values)

    def count(self, result: str) -> float:
        """How often sign-ins ended so, here."""
        found = self.runtime.metrics.registry.get_sample_value("gateway_sign_ins_total", {"result": result})
        return found or 0.0


Sites = Callable[..., Site]


@pytest.fixture
async def sites(module_database_url: str) -> AsyncIterator[Sites]:
    """Opens any number of processes that share the database; flags are settings."""
    async with AsyncExitStack() as stack:

        def make(**flags: str) -> Site:
            environment = {
                "GATEWAY_DATABASE__URL": module_database_url,
                "GATEWAY_DATABASE__STATEMENT_TIMEOUT": "20",
                "GATEWAY_DATABASE__LOCK_TIMEOUT": "20",
                "GATEWAY_DATABASE__POOL_WAIT": "20",
                "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
                "GATEWAY_SECRETS__MASTER_KEYS": "mQ7xV2pLw9TzR4kYc8NfH3sJb6GdA1eU",
                "GATEWAY_SECRETS__KEY_PEPPER": PEPPER,
                "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": BOOTSTRAP,
            }
            for name, value in flags.items():
                environment[f"GATEWAY_{name.upper()}"] = value
            runtime = build(load(CONFIG, {name: value for name, value in environment.items() if value}))
            stack.push_async_callback(runtime.database.close)
            stack.push_async_callback(runtime.admin_database.close)
            stack.push_async_callback(runtime.cache.close)
            stack.push_async_callback(runtime.authenticator.noted)
            app = build_app(runtime)
            base = flags.get("server__public_url", "http://gateway.test")

            def browser(address: str = "192.0.2.1", **headers: str) -> httpx.AsyncClient:
                client = httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, client=(address, 5000)), base_url=base, headers=headers
                )
                stack.push_async_callback(client.aclose)
                return client

            return Site(runtime, app, browser)

        yield make


@pytest.fixture
def site(sites: Sites) -> Site:
    return sites()
