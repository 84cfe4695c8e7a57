"""Who may use what: every route and method of the application, asked by everybody there is, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route

from gateway.access import team_keys, teams
from gateway.access.key_format import Peppers
from gateway.access.route_access import DeclaredRoute, all_declared
from gateway.admin.api.openapi import PREFIX
from gateway.admin.api.routes import ROUTES
from gateway.admin.pages.routes import PAGES
from gateway.admin.pages.serving import PREFIX as DASHBOARD
from gateway.middleware.authentication import AuthenticationMiddleware
from gateway.middleware.team_session import TeamSessionMiddleware
from tests.integration.sign_in.conftest import PEPPER, Site

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def every_route(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Those below mounts too."""
    for route in routes:
        if isinstance(route, Mount):
            yield from every_route(list(route.routes))
        else:
            yield route


def declared(app: Starlette) -> list[tuple[str, str, str]]:
    """(method, path, access) of everything there is."""
    found: list[tuple[str, str, str]] = []
    for route in every_route(app.routes):
        assert isinstance(route, DeclaredRoute), f"{route!r} does not declare who may use it"
        assert route.methods is None or set(route.methods) - {"HEAD"} == set(route.access)
        found += [(method, route.path, access) for method, access in route.access.items()]
    return found


def is_page(path: str, access: str) -> bool:
    """Whether it is for people: who may not see it is led to a form, and no Authorization header counts."""
    return access == "team-session" or (access in ("viewer", "admin") and not path.startswith(PREFIX))


def somewhere(path: str) -> str:
    """A path of this template where there is nothing."""
    return path.replace("{team}", "nowhere").replace("{period}", "day").replace("{id}", "nowhere")


def below(path: str) -> str:
    """The template with its parameters as they may be, whatever they are called."""
    parts = somewhere(path).split("/")
    return "/".join("nowhere" if part.startswith("{") else part for part in parts)


async def team_key(site: Site) -> str:
    async with site.runtime.database.transaction() as connection:
        team = await teams.create(connection, "test", teams.NewTeam(name="Roles", unlimited=True))
        issued = await team_keys.issue(
            connection, "test", Peppers([PEPPER]), team, team_keys.NewKey(name="k")
        )
    return issued.secret


async def ask(client: httpx.AsyncClient, method: str, path: str, token: str | None = None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = await client.request(method, below(path), headers=headers)
    return answer.status_code


async def test_every_row_of_the_admin_api_is_declared_with_its_role(site: Site) -> None:
    served = {
        (method, path): access for method, path, access in declared(site.app) if path.startswith(PREFIX)
    }
    assert served == {(row.method, PREFIX + row.path): row.role for row in ROUTES}
    assert {row.role for row in ROUTES if row.method != "GET"} == {"admin"}


async def test_every_page_of_the_dashboard_is_declared_with_its_role(site: Site) -> None:
    served = {
        (method, path): access
        for method, path, access in declared(site.app)
        if access in ("viewer", "admin") and not path.startswith(PREFIX)
    }
    assert served == {(row.method, DASHBOARD + row.path): row.role for row in PAGES}
    assert {row.role for row in PAGES if row.method != "GET"} <= {"admin"}


async def test_what_is_not_of_the_platform_team_is_for_whom_it_says(site: Site) -> None:
    others: dict[str, set[str]] = {}
    for method, path, access in declared(site.app):
        if access not in ("viewer", "admin"):
            others.setdefault(access, set()).add(f"{method} {path}")
    assert others["public"] == {"GET /healthz", "GET /readyz", "GET /gateway/static/{digest}/{name}"}
    assert others["metrics"] == {"GET /metrics"}
    assert others["signed-out"] == {
        "GET /admin/login",
        "POST /admin/login",
        "POST /admin/logout",
        "GET /admin/oidc/start",
        "GET /admin/oidc/callback",
        "GET /gateway/login",
        "POST /gateway/login",
        "POST /gateway/logout",
        "POST /gateway/look",
    }
    assert others["team-session"] == {
        "GET /gateway/",
        "GET /gateway/team/tasks",
        "GET /gateway/team/requests",
        "GET /gateway/team/connect",
    }
    assert set(others) == {"public", "metrics", "signed-out", "team", "team-session"}
    assert all(name.split()[1].startswith(("/v1/", "/gateway/")) for name in others["team"])


async def test_nobody_gets_nothing_but_what_is_open(site: Site) -> None:
    nobody = site.browser()
    for method, path, access in declared(site.app):
        status = await ask(nobody, method, path)
        if is_page(path, access):
            assert status == 303, (method, path)
        elif access in ("team", "metrics", "viewer", "admin"):
            assert status == 401, (method, path)
        else:
            assert status not in (401, 403), (method, path)


async def test_no_method_of_a_guarded_path_is_forgotten(site: Site) -> None:
    """Methods a path does not have are refused before anything is said about it, or are 405."""
    nobody = site.browser()
    for path, access in {(path, access) for _, path, access in declared(site.app)}:
        if access in ("public", "signed-out"):
            continue
        refused = 303 if is_page(path, access) else 401
        for method in METHODS:
            assert await ask(nobody, method, path) in (refused, 405), (method, path)


async def test_a_viewer_reads_and_changes_nothing(site: Site) -> None:
    token = (await site.token("viewer")).secret
    browser = await site.signed_in(token)
    for method, path, access in declared(site.app):
        if access not in ("viewer", "admin"):
            continue
        by_header, by_cookie = (
            await ask(site.browser(), method, path, token),
            await ask(browser, method, path),
        )
        for status in (by_cookie,) if is_page(path, access) else (by_header, by_cookie):
            if access == "viewer":
                assert status not in (401, 403), (method, path)
            else:
                assert status == 403, (method, path)
        if is_page(path, access):
            assert by_header == 303, "pages are for browsers"


@pytest.mark.long
async def test_an_admin_passes_every_check_of_the_role(site: Site) -> None:
    token = (await site.token("admin")).secret
    browser = await site.signed_in(token)
    for method, path, access in declared(site.app):
        if access in ("viewer", "admin"):
            assert await ask(site.browser(), method, path, token) not in (401, 403), (method, path)
            assert await ask(browser, method, path) not in (401, 403), (method, path)


@pytest.mark.long
async def test_no_row_takes_a_team_key_or_what_has_ended(site: Site) -> None:
    key = await team_key(site)
    assert await ask(site.browser(), "GET", "/gateway/account", key) == 200, "the key is good for its own"
    revoked, expired, idle = [await site.token("admin", name) for name in ("revoked", "expired", "idle")]
    browsers = [await site.signed_in(one.secret) for one in (revoked, expired, idle)]
    for browser in browsers:
        assert await ask(browser, "GET", f"{PREFIX}/status") == 200
    admin = site.browser()
    answer = await admin.post(
        f"{PREFIX}/admin-tokens/{revoked.token.id}/revoke",
        headers={"authorization": f"Bearer {expired.secret}"},
    )
    assert answer.status_code == 200
    late = "UPDATE admin_sessions SET {} = now() - interval '9 hours' WHERE token_id = %(id)s"
    await site.sql(late.format("created_at"), id=expired.token.id)
    await site.sql(late.format("last_seen_at"), id=idle.token.id)
    for row in ROUTES:
        path = PREFIX + row.path
        assert await ask(site.browser(), row.method, path, key) == 401, (row.method, path)
        assert await ask(site.browser(), row.method, path, revoked.secret) == 401, (row.method, path)
        for browser in browsers:
            assert await ask(browser, row.method, path) == 401, (row.method, path)


async def test_what_a_team_uses_takes_no_admin_token_and_no_session(site: Site) -> None:
    token = (await site.token("admin")).secret
    browser = await site.signed_in(token)
    for method, path, access in declared(site.app):
        if access == "team":
            assert await ask(site.browser(), method, path, token) == 401, (method, path)
            assert await ask(browser, method, path) == 401, (method, path)
        elif access == "team-session":
            assert await ask(site.browser(), method, path, token) == 303, (method, path)
            assert await ask(browser, method, path) == 303, (method, path)


async def test_every_route_for_teams_begins_with_the_authentication(site: Site) -> None:
    for route in every_route(site.app.routes):
        if isinstance(route, DeclaredRoute) and "team" in route.access.values():
            assert isinstance(route.app, AuthenticationMiddleware), route.path
        if isinstance(route, DeclaredRoute) and "team-session" in route.access.values():
            assert isinstance(route.app, TeamSessionMiddleware), route.path


def test_a_route_that_declares_nothing_is_not_served() -> None:
    async def hello(scope: object, receive: object, send: object) -> None: ...

    good = DeclaredRoute("/good", hello, "public", methods=["GET"])
    assert all_declared([good]) == [good]
    with pytest.raises(TypeError, match="'/forgotten' does not declare"):
        all_declared([good, Route("/forgotten", hello)])
    with pytest.raises(TypeError, match="does not declare"):
        all_declared([Mount("/below", routes=[good])])


def test_every_method_needs_its_access() -> None:
    with pytest.raises(TypeError, match="every method"):
        DeclaredRoute("/x", object(), {"GET": "viewer"}, methods=["GET", "POST"])
    with pytest.raises(TypeError, match="every method"):
        DeclaredRoute("/x", object(), "public")
    with pytest.raises(TypeError):
        DeclaredRoute("/x", object(), middleware=[Middleware(AuthenticationMiddleware)])  # type: ignore[call-arg]
