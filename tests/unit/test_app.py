"""The table of routes: whatever costs credits passes credit_quota, whatever does not is named here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from gateway.admin.api.http import AdminPath
from gateway.admin.api.openapi import PREFIX
from gateway.admin.api.routes import ROUTES as ADMIN_ROUTES
from gateway.admin.pages.routes import PAGES
from gateway.admin.pages.serving import PREFIX as DASHBOARD
from gateway.admin.pages.serving import PagePath
from gateway.app import build_app, routes
from gateway.composition import build
from gateway.endpoints.generations import Generations
from gateway.middleware.authentication import AuthenticationMiddleware
from gateway.middleware.credit_quota import CreditQuotaMiddleware
from gateway.middleware.rate_limits import RateLimitsMiddleware
from gateway.middleware.repeats import RepeatsMiddleware
from gateway.middleware.request_body import RequestBodyMiddleware
from gateway.middleware.team_session import TeamSessionMiddleware
from gateway.proxy.generation import Operation
from gateway.runtime import Runtime
from gateway.settings import load
from tests.fakes.asgi import HOST, Header, Sent, call, http

ENVIRONMENT = {
    "GATEWAY_DATABASE__URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
    "GATEWAY_SECRETS__MASTER_KEYS": "Zk3v9QxT1mB7nR5yW2hL8dC4fJ6gP0sA",
    "GATEWAY_SECRETS__KEY_PEPPER": "uE7iO3aY9tK1pN5rM8wV2xB6zQ4cD0fH",
    "GATEWAY_SERVER__ALLOWED_HOSTS": "gateway.test",
}
# Everything that costs no credits. A new route is added here, or it is metered.
FREE = {
    "GET /v1/tasks/{id}",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /gateway/account",
    "GET /gateway/tasks",
    "GET /gateway/usage",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /gateway/",
    "GET /gateway/team/tasks",
    "GET /gateway/team/requests",
    "GET /gateway/team/connect",
    "GET /gateway/login",
    "POST /gateway/login",
    "POST /gateway/logout",
    "POST /gateway/look",
    "GET /gateway/static/{digest}/{name}",
    "GET /admin/login",
    "POST /admin/login",
    "POST /admin/logout",
    "GET /admin/oidc/start",
    "GET /admin/oidc/callback",
}
PAID = {
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/async/images/generations",
    "POST /v1/async/images/edits",
    "POST /v1/async/videos/generations",
}


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return build(load(Path(__file__).parents[2] / "config", ENVIRONMENT))


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> Starlette:
    return build_app(runtime)


def chain(route: BaseRoute) -> list[Any]:
    """The middleware of a route from the outside in, and its endpoint at the end."""
    assert isinstance(route, Route)
    found: list[Any] = [route.app]
    while (inner := getattr(found[-1], "_app", None)) is not None:
        found.append(inner)
    return found


def names(route: BaseRoute) -> set[str]:
    """`METHOD /path` of everything a route answers, HEAD aside."""
    assert isinstance(route, Route)
    endpoint = chain(route)[-1]
    methods = vars(endpoint)["_rows"] if isinstance(endpoint, AdminPath | PagePath) else route.methods
    return {f"{method} {route.path}" for method in set(methods or ()) - {"HEAD"}}


def is_metered(route: BaseRoute) -> bool:
    return any(isinstance(one, CreditQuotaMiddleware) for one in chain(route))


def test_every_route_is_metered_or_on_the_free_list(runtime: Runtime) -> None:
    metered: set[str] = set()
    free: set[str] = set()
    for route in routes(runtime):
        if isinstance(chain(route)[-1], AdminPath):
            assert names(route) <= {f"{row.method} {PREFIX}{row.path}" for row in ADMIN_ROUTES}
        elif isinstance(chain(route)[-1], PagePath):
            assert names(route) <= {f"{row.method} {DASHBOARD}{row.path}" for row in PAGES}
        else:
            (metered if is_metered(route) else free).update(names(route))
    assert metered == PAID
    assert free == FREE


def test_every_post_below_v1_is_metered(runtime: Runtime) -> None:
    posts = [route for route in routes(runtime) if any(name.startswith("POST /v1") for name in names(route))]
    assert len(posts) == len(Operation)
    assert all(is_metered(route) for route in posts)


@pytest.mark.parametrize("operation", Operation)
def test_the_chain_of_a_paid_route_is_in_order(runtime: Runtime, operation: Operation) -> None:
    (route,) = [route for route in routes(runtime) if getattr(route, "path", "") == operation.path]
    assert [type(one) for one in chain(route)] == [
        AuthenticationMiddleware,
        RequestBodyMiddleware,
        RepeatsMiddleware,
        RateLimitsMiddleware,
        CreditQuotaMiddleware,
        Generations,
    ]
    endpoint = chain(route)[-1]
    assert (endpoint.sync_timeout, endpoint.submit_timeout) == (590, 60)
    assert vars(chain(route)[1])["_operation"] is operation


def test_whatever_a_team_asks_is_authenticated(runtime: Runtime) -> None:
    open_ones = {
        "/gateway/login",
        "/gateway/logout",
        "/gateway/look",
        "/gateway/static/{digest}/{name}",
    }
    pages = {"/gateway/", "/gateway/team/tasks", "/gateway/team/requests", "/gateway/team/connect"}
    for route in routes(runtime):
        path = getattr(route, "path", "")
        if path.startswith(("/v1", "/gateway")) and path not in open_ones:
            door = TeamSessionMiddleware if path in pages else AuthenticationMiddleware
            assert isinstance(chain(route)[0], door), path


def test_every_request_passes_the_same_three_first(app: Starlette) -> None:
    assert [getattr(one.cls, "__name__", "") for one in app.user_middleware] == [
        "RequestContextMiddleware",
        "ErrorResponsesMiddleware",
        "RequestGuardMiddleware",
    ]


def test_no_route_has_two_spellings(app: Starlette) -> None:
    assert app.router.redirect_slashes is False


async def ask(app: Starlette, method: str, path: str, *headers: Header) -> Sent:
    return await call(app, http(method, path, [HOST, *headers]))


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
        ("GET", "/healthz/", 404, "not_found"),
        ("GET", "/v1//models", 404, "not_found"),
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("GET", "/v1/models", 401, "invalid_key"),
        ("HEAD", "/v1/models", 401, "invalid_key"),
        ("GET", "/v1/tasks/t", 401, "invalid_key"),
        ("POST", "/v1/images/generations", 401, "invalid_key"),
        ("GET", "/gateway/account", 401, "invalid_key"),
        ("GET", "/metrics", 401, "invalid_admin_token"),
        ("GET", "/admin/api/teams", 401, "invalid_admin_token"),
        ("GET", "/admin/logout", 405, "method_not_allowed"),
        ("GET", "/admin/oidc/start", 404, "not_found"),  # not configured
        ("GET", "/admin/oidc/callback", 404, "not_found"),
        ("POST", "/admin/login", 415, "unsupported_media_type"),
        ("POST", "/gateway/login", 415, "unsupported_media_type"),
        ("GET", "/gateway/logout", 405, "method_not_allowed"),
        ("POST", "/gateway/", 405, "method_not_allowed"),
        ("GET", "/gateway", 404, "not_found"),
        ("GET", "/gateway/static/0000/gateway.css", 404, "not_found"),
    ],
)
async def test_failures_have_one_shape(
    app: Starlette, method: str, path: str, status: int, reason: str
) -> None:
    sent = await ask(app, method, path)
    assert (sent.status, sent.error["code"], sent.error["reason"]) == (status, status, reason)
    assert sent.values(b"x-request-id") == [sent.error["request_id"].encode()]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/images/generations", b"POST"),
        ("PUT", "/v1/images/edits", b"POST"),
        ("POST", "/v1/models", b"GET, HEAD"),
        ("DELETE", "/v1/tasks/t", b"GET, HEAD"),
        ("OPTIONS", "/healthz", b"GET, HEAD"),
    ],
)
async def test_other_methods_are_405_and_told_which_work(
    app: Starlette, method: str, path: str, allowed: bytes
) -> None:
    sent = await ask(app, method, path)
    assert (sent.status, sent.error["type"]) == (405, "method_not_allowed")
    assert sent.values(b"allow") == [allowed]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_process_says_that_it_lives(app: Starlette, method: str) -> None:
    sent = await ask(app, method, "/healthz")
    assert (sent.status, sent.values(b"content-length")) == (200, [b"15"])


async def test_a_foreign_host_is_refused_with_an_id(app: Starlette) -> None:
    sent = await call(app, http(headers=[(b"host", b"evil.test"), (b"x-request-id", b"my-request-1")]))
    assert (sent.status, sent.error["reason"], sent.error["request_id"]) == (
        400,
        "unknown_host",
        "my-request-1",
    )


async def test_without_postgres_it_is_not_ready_and_a_key_cannot_be_looked_up(app: Starlette) -> None:
    ready = await ask(app, "GET", "/readyz")
    assert ready.status == 503
    assert b'"database":"unreachable"' in ready.body
    key = b"Bearer pxg_0123456789_abcdefghijklmnopqrstuvwxyzABCDEF01FMwt"
    assert (await ask(app, "GET", "/v1/models", (b"authorization", key))).status == 503
