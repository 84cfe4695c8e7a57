"""The rows of the admin API as Starlette routes: caller, role, body and query are checked here, for every row alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.route_access import DeclaredRoute
from gateway.admin.api.answers import CsvAnswer, encode
from gateway.admin.api.binding import invoke, require_role
from gateway.admin.api.openapi import PREFIX
from gateway.admin.api.route import AdminApi, AdminRoute
from gateway.admin.api.routes import ROUTES
from gateway.admin.callers import Callers
from gateway.proxy import small_body, strict_json

LARGEST_BODY = 1024 * 1024


def admin_routes(api: AdminApi, callers: Callers) -> list[BaseRoute]:
    """Every row of the table under its full path. Failures are raised as GatewayError, never answered here."""
    paths: dict[str, dict[str, AdminRoute]] = {}
    for row in ROUTES:
        paths.setdefault(row.path, {})[row.method] = row
    return [
        DeclaredRoute(
            PREFIX + path,
            AdminPath(api, callers, rows),
            {method: row.role for method, row in rows.items()},
        )
        for path, rows in paths.items()
    ]


class AdminPath:
    """One path of the admin API: an ASGI app that knows the rows of its methods."""

    def __init__(self, api: AdminApi, callers: Callers, rows: Mapping[str, AdminRoute]) -> None:
        self._api = api
        self._callers = callers
        self._rows = dict(rows)
        if "GET" in rows:
            self._rows["HEAD"] = rows["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        caller = await self._callers.caller(request.method, request)
        row = self._rows.get(request.method)
        if row is None:
            raise errors.method_not_allowed(", ".join(sorted(self._rows)))
        require_role(row, caller)
        query = _query(request.query_params.multi_items())
        body = (
            {}
            if row.method == "GET"
            else _body(request, await small_body.read(request, LARGEST_BODY, "The body"))
        )
        answer = await invoke(self._api, row, caller, request.path_params, query, body)
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        if isinstance(answer, CsvAnswer):
            content = answer.text.encode()
            headers["content-type"] = "text/csv; charset=utf-8"
            headers["content-disposition"] = f'attachment; filename="{answer.name}"'
        else:
            content = encode(answer)
        headers["content-length"] = str(len(content))
        response = Response(b"" if request.method == "HEAD" else content, row.status, headers)
        await response(scope, receive, send)


def _query(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    query = dict(items)
    if len(query) != len(items):
        names = [name for name, _ in items]
        double = sorted({ascii(name[:60]) for name in names if names.count(name) > 1})
        raise errors.bad_request(f"Given twice in the query: {', '.join(double)}.", "invalid_fields")
    return query


def _body(request: Request, raw: bytes) -> dict[str, Any]:
    """The JSON object in the body, its numbers exact; nothing at all counts as `{}`."""
    if not raw:
        return {}
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise errors.unsupported_media_type("The admin API reads 'content-type: application/json' only.")
    return strict_json.parse(raw, exact=True)
