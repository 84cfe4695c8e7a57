"""Who may use a route: declared where the route is made. A route that declares nothing is not served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

Access = Literal[
    "public",  # anybody: probes, and a page that holds nothing
    "signed-out",  # anybody, for signing in and out: counted, and refused to other sites
    "metrics",  # the metrics token or an admin token, unless metrics.public
    "team",  # a team key
    "team-session",  # a browser's session of a team key: pages that only read; others are led to the form
    "viewer",  # an admin token or session of any role
    "admin",  # an admin token or session with the role admin
]


class DeclaredRoute(Route):
    """A route with its access, one for all its methods or each its own. HEAD is what GET is."""

    def __init__(
        self,
        path: str,
        endpoint: Any,
        access: Access | Mapping[str, Access],
        *,
        methods: Sequence[str] = (),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        super().__init__(path, endpoint, methods=list(methods) or None, middleware=list(middleware))
        declared = dict.fromkeys(methods, access) if isinstance(access, str) else dict(access)
        if not declared or (methods and set(methods) != set(declared)):
            raise TypeError(f"{path}: every method needs its access")
        self.access: Mapping[str, Access] = MappingProxyType(declared)


def all_declared(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """The routes, when every one has declared its access; TypeError names one that has not."""
    found = list(routes)
    for route in found:
        if not isinstance(route, DeclaredRoute):
            raise TypeError(f"{getattr(route, 'path', route)!r} does not declare who may use it")
    return found
