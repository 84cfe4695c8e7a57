"""Finds the route of a request by its path; no route or another method is an error like any other."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from gateway import errors


class Application(Starlette):
    """Starlette with `RouteTable`, and without its own renderers of failures: one of `middleware` renders them all."""

    def __init__(
        self, routes: Sequence[BaseRoute], middleware: Sequence[Middleware], lifespan: Lifespan[Any]
    ) -> None:
        super().__init__(middleware=middleware)
        self.router = RouteTable(routes, lifespan)

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for factory, args, kwargs in reversed(self.user_middleware):
            app = factory(app, *args, **kwargs)
        return app


class RouteTable(Router):
    """A router for routes of which no two have one path, so that most are found without trying any other.

    Found by the path itself is a route without parameters, by what stands before its last part one whose only parameter
    that is. Others are tried in their order. Another spelling of a path is another path.
    """

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Any]) -> None:
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        self._plain: dict[str, Route] = {}
        self._by_beginning: dict[str, tuple[Route, str]] = {}
        self._others: list[Route] = []
        known: set[str] = set()
        for route in self.routes:
            if not isinstance(route, Route) or route.path in known:
                raise TypeError(f"{route!r} is no route that would ever be asked")
            known.add(route.path)
            self._add(route)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        if scope["type"] != "http":
            return super().__call__(scope, receive, send)
        route, parameters = self._find(scope)
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, parameters
        if route.methods and scope["method"] not in route.methods:
            raise errors.method_not_allowed(", ".join(sorted(route.methods)))
        return route.app(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Route, dict[str, Any]]:
        """The route and what its parameters are; raises 404."""
        path = scope["path"]
        if (plain := self._plain.get(path)) is not None:
            return plain, {}
        beginning, _, last = path.rpartition("/")
        if last and (found := self._by_beginning.get(beginning)) is not None:
            return found[0], {found[1]: last}
        for route in self._others:
            match, child = route.matches(scope)
            if match is not Match.NONE:
                return route, child["path_params"]
        raise errors.not_found()

    def _add(self, route: Route) -> None:
        beginning, _, last = route.path.rpartition("/")
        if not route.param_convertors:
            self._plain[route.path] = route
        elif "{" not in beginning and last == f"{{{next(iter(route.param_convertors))}}}":
            self._by_beginning[beginning] = (route, last[1:-1])
        else:
            self._others.append(route)
