"""A route is found by its path, and it is the one that trying all of them would find."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.middleware.routing import Application, RouteTable
from tests.fakes.asgi import call, http, ok

PATHS = [
    "/",
    "/a",
    "/a/",
    "/a/{id}",
    "/a/fixed",
    "/a/{id}/b",
    "/a/{id}/b/{name}",
    "/b/{id}.csv",
    "/c/{number:int}",
    "/d/{rest:path}",
]
ASKED = [
    *("/", "/a", "/a/", "/a/1", "/a/fixed", "/a/1/", "/a//", "/a/1/b", "/a/1/b/", "/a/1/b/x", "/a/1/b/x/y"),
    *("/b/x.csv", "/b/x", "/c/5", "/c/x", "/d/", "/d/x", "/d/x/y", "/e", "", "a", "//", "/A", "/a/{id}"),
]


class Endpoint:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)


def table(*paths: str) -> RouteTable:
    routes = [Route(path, Endpoint(), methods=["GET"]) for path in paths]
    return RouteTable(routes, lambda _: None)  # type: ignore[arg-type]


def by_trying(routes: RouteTable, scope: Scope) -> tuple[Any, Any] | None:
    """Fixed paths come before those with a parameter in any table that means both."""
    for route in sorted(routes.routes, key=lambda one: "{" in getattr(one, "path", "")):
        match, child = route.matches(scope)
        if match is Match.FULL:
            return route, child["path_params"]
    return None


@pytest.mark.parametrize("path", ASKED)
async def test_it_is_the_route_that_matches(path: str) -> None:
    routes, scope = table(*PATHS), http("GET", path)
    expected = by_trying(routes, http("GET", path))
    if expected is None:
        with pytest.raises(GatewayError) as refused:
            await call(routes, scope)
        assert (refused.value.status, "route" in scope) == (404, False)
        return
    await call(routes, scope)
    assert (scope["route"], scope["path_params"]) == expected
    assert scope["endpoint"] is scope["route"].endpoint


async def test_head_is_get_and_others_are_told_what_works() -> None:
    assert (await call(table(*PATHS), http("HEAD", "/a/1"))).status == 200
    scope = http("POST", "/a/1")
    with pytest.raises(GatewayError) as refused:
        await call(table(*PATHS), scope)
    assert (refused.value.status, refused.value.headers["allow"]) == (405, "GET, HEAD")
    assert scope["route"].path == "/a/{id}"  # the metrics name it


def test_no_two_routes_have_one_path() -> None:
    with pytest.raises(TypeError):
        table("/a", "/b", "/a")


def test_any_server_sees_that_it_is_asgi_3() -> None:
    """They look whether calling the application gives a coroutine."""
    assert inspect.iscoroutinefunction(Application([], [], lambda _: None).__call__)  # type: ignore[arg-type]
