"""The application on one page: middleware in order, and every route. Read this first.

A request passes, from the top: request_context (id, exchange, log line) → error_responses (the only renderer) →
request_guard (Host, path, what the server has not checked), then its route's own chain. A paid route's chain ends in
credit_quota: there is no way to Pixapi for a paid call without a hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from gateway.access.route_access import Access, DeclaredRoute, all_declared
from gateway.admin.api.http import admin_routes
from gateway.admin.oidc import OidcCallback, OidcStart
from gateway.admin.pages.look import Look
from gateway.admin.pages.page import Dashboard
from gateway.admin.pages.serving import page_routes
from gateway.admin.sign_in import Login, Logout
from gateway.endpoints.account import Account, OwnTasks, OwnUsage
from gateway.endpoints.generations import Generations
from gateway.endpoints.health import Alive, Exposition, Ready
from gateway.endpoints.models import Models
from gateway.endpoints.tasks import Tasks
from gateway.endpoints.team_pages import TeamPage, connect, home, own_requests, own_tasks
from gateway.endpoints.team_sign_in import TeamLogin, TeamLogout
from gateway.limits.limits import Lane
from gateway.middleware.authentication import AuthenticationMiddleware
from gateway.middleware.credit_quota import CreditQuotaMiddleware
from gateway.middleware.error_responses import ErrorResponsesMiddleware
from gateway.middleware.rate_limits import RateLimitsMiddleware
from gateway.middleware.repeats import RepeatsMiddleware
from gateway.middleware.request_body import RequestBodyMiddleware
from gateway.middleware.request_context import RequestContextMiddleware
from gateway.middleware.request_guard import RequestGuardMiddleware
from gateway.middleware.response_cache import ResponseCacheMiddleware
from gateway.middleware.routing import Application
from gateway.middleware.team_session import TeamSessionMiddleware
from gateway.pages import team_addresses
from gateway.proxy.generation import Operation
from gateway.proxy.multipart import FormLimits
from gateway.runtime import Runtime


def build_app(runtime: Runtime) -> Starlette:
    """The ASGI application; its lifespan opens and closes the runtime."""
    server = runtime.settings.server
    return Application(
        routes=all_declared(routes(runtime)),
        middleware=[
            Middleware(
                RequestContextMiddleware,
                clock=runtime.clock,
                metrics=runtime.metrics,
                tracing=runtime.tracing,
                trusted_proxies=server.trusted_proxies,
                note=runtime.refusals.note,
            ),
            Middleware(ErrorResponsesMiddleware),
            Middleware(RequestGuardMiddleware, allowed_hosts=server.allowed_hosts),
        ],
        lifespan=_lifespan(runtime),
    )


def routes(runtime: Runtime) -> list[BaseRoute]:
    """Every route of the gateway, and who may use it. `metered` ones cost credits, all others are free."""
    team = [Middleware(AuthenticationMiddleware, authenticator=runtime.authenticator)]
    tasks = Tasks(runtime.reader, runtime.entries, runtime.watch, runtime.authenticator, runtime.clock)
    models = Models(runtime.models, runtime.prices, runtime.clock)
    free = [*team, Middleware(RateLimitsMiddleware, limits=runtime.limits, lane=Lane.FREE)]
    return [
        # Pixapi's own API
        *(metered(runtime, operation, team) for operation in Operation),
        cached("/v1/tasks/{id}", tasks, free),
        cached("/v1/models", models, free),
        cached("/v1/models/{id}", models, free),
        # what a team key may ask about itself
        _get("/gateway/account", Account(runtime.database), "team", free),
        _get("/gateway/usage", OwnUsage(runtime.database, runtime.clock), "team", free),
        _get("/gateway/tasks", OwnTasks(runtime.database), "team", free),
        # the same for people, in a browser
        *team_page_routes(runtime),
        # the process
        _get("/healthz", Alive(), "public"),
        _get("/readyz", Ready(runtime.checks), "public"),
        _get("/metrics", _metrics(runtime), "metrics"),
        # the platform team
        *sign_in_routes(runtime),
        *admin_routes(runtime.admin_api, runtime.callers),
        *dashboard_routes(runtime),
    ]


def sign_in_routes(runtime: Runtime) -> list[BaseRoute]:
    """How people get a session, and end it."""
    login = Login(runtime.callers, runtime.sign_in_attempts, runtime.sign_in_pages)
    oidc = runtime.oidc
    return [
        DeclaredRoute("/admin/login", login, "signed-out", methods=["GET", "POST"]),
        DeclaredRoute("/admin/logout", Logout(runtime.callers), "signed-out", methods=["POST"]),
        _get("/admin/oidc/start", OidcStart(oidc), "signed-out"),
        _get("/admin/oidc/callback", OidcCallback(oidc), "signed-out"),
    ]


def dashboard_routes(runtime: Runtime) -> list[BaseRoute]:
    """The pages of the platform team, and the files they load."""
    dashboard = Dashboard(
        api=runtime.admin_api,
        prices=runtime.prices,
        pool=runtime.pool,
        public_url=runtime.settings.server.public_url,
    )
    return [
        *page_routes(dashboard, runtime.callers, runtime.pages),
        DeclaredRoute("/gateway/look", Look(runtime.callers, runtime.clock), "signed-out", methods=["POST"]),
        _get("/gateway/static/{digest}/{name}", runtime.pages.assets, "public"),
    ]


def team_page_routes(runtime: Runtime) -> list[BaseRoute]:
    """The pages of a team, and how its people sign in to them. No paid call waits for what they read."""
    visits, database = runtime.team_visits, runtime.admin_database
    login = TeamLogin(visits, runtime.authenticator, runtime.sign_in_attempts)
    door = [
        Middleware(TeamSessionMiddleware, visits=visits),
        Middleware(RateLimitsMiddleware, limits=runtime.limits, lane=Lane.FREE),
    ]
    pages = {
        team_addresses.FRONT: home,
        team_addresses.TASKS: own_tasks,
        team_addresses.REQUESTS: own_requests,
        team_addresses.CONNECT: connect,
    }
    return [
        DeclaredRoute(team_addresses.LOGIN, login, "signed-out", methods=["GET", "POST"]),
        DeclaredRoute(team_addresses.LOGOUT, TeamLogout(visits), "signed-out", methods=["POST"]),
        *(_get(path, TeamPage(visits, database, page), "team-session", door) for path, page in pages.items()),
    ]


def cached(path: str, endpoint: Tasks | Models, chain: list[Middleware]) -> BaseRoute:
    """A free route of Pixapi's: what is fresh is answered before its endpoint is asked."""
    rule = Middleware(ResponseCacheMiddleware, rule=endpoint.fresh)
    return _get(path, endpoint, "team", [*chain, rule])


def metered(runtime: Runtime, operation: Operation, team: list[Middleware]) -> BaseRoute:
    """A paid route: the call cannot be reached but through credit_quota."""
    server, upstream = runtime.settings.server, runtime.settings.upstream
    endpoint = Generations(
        runtime.dispatcher,
        runtime.ledger,
        runtime.models,
        runtime.metrics,
        runtime.repeats,
        sync_timeout=upstream.sync_timeout,
        submit_timeout=upstream.submit_timeout,
    )
    chain = [
        *team,
        Middleware(
            RequestBodyMiddleware,
            operation=operation,
            spool=runtime.spool,
            paid_calls=runtime.paid_calls,
            max_json_bytes=server.max_json_bytes,
            form_limits=FormLimits(
                max_bytes=server.max_multipart_bytes,
                max_files=server.max_files,
                max_file_bytes=server.max_file_bytes,
                max_fields=server.max_fields,
            ),
            idle_timeout=server.body_idle_timeout,
        ),
        Middleware(RepeatsMiddleware, repeats=runtime.repeats),
        Middleware(RateLimitsMiddleware, limits=runtime.limits, lane=Lane.PAID),
        Middleware(
            CreditQuotaMiddleware,
            prices=runtime.prices,
            models=runtime.models,
            ledger=runtime.ledger,
            spool=runtime.spool,
        ),
    ]
    return DeclaredRoute(operation.path, endpoint, "team", methods=["POST"], middleware=chain)


def _get(path: str, endpoint: object, access: Access, chain: Sequence[Middleware] = ()) -> BaseRoute:
    return DeclaredRoute(path, endpoint, access, methods=["GET"], middleware=chain)


def _metrics(runtime: Runtime) -> Exposition:
    metrics = runtime.settings.metrics
    return Exposition(
        runtime.metrics,
        runtime.page,
        runtime.siblings,
        public=metrics.public,
        token=None if metrics.token is None else metrics.token.get_secret_value(),
        admin_tokens=runtime.admin_tokens,
    )


def _lifespan(runtime: Runtime) -> Any:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with runtime.running():
            # The server awaits `drain` after the first signal, while it goes on answering.
            yield {"drain": runtime.drain}

    return lifespan
