"""The rows of the dashboard as Starlette routes: session, role, form and language are looked at here, for every row.

A page never answers JSON: failures become pages that say what to do, and nobody is asked to sign in twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from starlette.requests import Request
from starlette.routing import BaseRoute, compile_path
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.admin_sessions import Session
from gateway.access.route_access import DeclaredRoute
from gateway.admin.callers import Callers
from gateway.admin.next_page import next_page
from gateway.admin.pages.notices import notice
from gateway.admin.pages.page import Answer, Dashboard, Download, Goto, Html, PageCall, PageRoute
from gateway.admin.pages.routes import PAGES
from gateway.errors import GatewayError
from gateway.pages.forms import Form, read_form
from gateway.pages.rendering import Pages, headers
from gateway.pages.view import LOOK_COOKIE, Person, View, view_of
from gateway.proxy.caching import etag_of, matches
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply

PREFIX = "/admin"
_SHOWN = [compile_path(PREFIX + row.path)[0] for row in PAGES if row.method == "GET"]


def page_routes(dashboard: Dashboard, callers: Callers, pages: Pages) -> list[BaseRoute]:
    """Every row of the table under its full path."""
    paths: dict[str, dict[str, PageRoute]] = {}
    for row in PAGES:
        paths.setdefault(row.path, {})[row.method] = row
    return [
        DeclaredRoute(
            PREFIX + path,
            PagePath(dashboard, callers, pages, rows),
            {method: row.role for method, row in rows.items()},
        )
        for path, rows in paths.items()
    ]


class PagePath:
    """One path of the dashboard: an ASGI app that knows the rows of its methods."""

    def __init__(
        self, dashboard: Dashboard, callers: Callers, pages: Pages, rows: Mapping[str, PageRoute]
    ) -> None:
        self._dashboard = dashboard
        self._callers = callers
        self._pages = pages
        self._rows = dict(rows)
        if "GET" in rows:
            self._rows["HEAD"] = rows["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        view = view_of(request, self._callers.read(request, LOOK_COOKIE), self._dashboard.api.clock.now())
        view = replace(view, path=page_of(view.path))
        try:
            view, answer = await self._answer(request, view)
        except GatewayError as error:
            exchange_of(scope).failure = error.reason
            answer = failed(error)
            await self._send(send, request, view, answer, error)
        else:
            await self._send(send, request, view, answer)

    async def _answer(self, request: Request, view: View) -> tuple[View, Answer]:
        row = self._rows.get(request.method)
        if row is None:
            raise errors.method_not_allowed(", ".join(sorted(self._rows)))
        self._callers.refuse_cross_site(request.method, request)
        # A page that asks by itself whether something has changed is nobody at work.
        session = await self._callers.session(request, seen=not view.fragment)
        if session is None:
            return view, Goto(sign_in(view))
        view = signed_in(view, session)
        if row.role == "admin" and session.role != "admin":
            raise errors.forbidden(
                "The role viewer only reads; changes need a session with the role admin.", "role"
            )
        form = await read_form(request) if request.method == "POST" else Form()
        call = PageCall(
            dashboard=self._dashboard,
            session=session,
            view=view,
            params=request.path_params,
            query={name: value for name, value in request.query_params.items() if value != ""},
            origin=self._dashboard.public_url or f"{request.url.scheme}://{request.url.netloc}",
            form=form.fields,
            several=form.several,
        )
        return view, await row.handler(call)

    async def _send(
        self, send: Send, request: Request, view: View, answer: Answer, error: GatewayError | None = None
    ) -> None:
        if isinstance(answer, Goto):
            await send_on(send, request, answer)
        elif isinstance(answer, Download):
            name = f'attachment; filename="{answer.name}"'.encode()
            extra = [(b"content-type", b"text/csv; charset=utf-8"), (b"content-disposition", name)]
            body = answer.text.encode()
            kept = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
            await reply(send, 200, [*extra, *kept], body)
        else:
            said = notice(view.query.get("done"), view.text) if request.method != "POST" else None
            values = {"notice": said, "once": answer.once, **answer.values}
            body = self._pages.render(f"admin/{answer.template}", view, **values)
            if answer.live:
                await send_live(send, request, body)
                return
            found = headers(images_from=answer.images_from)
            if error is not None:
                found += [(name.encode(), text.encode("latin-1")) for name, text in error.headers.items()]
            await reply(send, answer.status, found, b"" if request.method == "HEAD" else body)


async def send_live(send: Send, request: Request, body: bytes) -> None:
    """A part of a page, or 304 when the browser has just this one. The page itself, at the same address, is another
    variant, which no browser keeps."""
    tag = etag_of(body)
    found = [*headers(cache=b"no-cache, private"), (b"etag", tag), (b"vary", b"hx-request")]
    if matches(exchange_of(request.scope), tag):
        kept = [header for header in found if header[0] != b"content-type"]
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
    else:
        await reply(send, 200, found, b"" if request.method == "HEAD" else body)


def page_of(path: str) -> str:
    """The page that a path belongs to: itself, or for one that only takes forms, the one above it that shows them."""
    while path != PREFIX and not any(found.fullmatch(path) for found in _SHOWN):
        path = path.rpartition("/")[0]
    return path if path != PREFIX else f"{PREFIX}/"


def failed(error: GatewayError) -> Html:
    """The page that says what went wrong and what to do."""
    return Html(template="error.html", values={"error": error}, status=error.status)


def signed_in(view: View, session: Session) -> View:
    return View(
        language=view.language,
        theme=view.theme,
        path=view.path,
        query=view.query,
        now=view.now,
        person=Person(name=session.name, role=session.role),
        fragment=view.fragment,
    )


def sign_in(view: View) -> str:
    """The form's address, with the way back to the page that was asked for."""
    target = next_page(view.address)
    return "/admin/login" + ("" if target == next_page(None) else f"?next={quote(target, safe='/')}")


async def send_on(send: Send, request: Request, answer: Goto) -> None:
    """303, or for a script that asked for a part of a page, the word that the whole page moves on."""
    path = answer.path
    if answer.done is not None:
        path += f"{'&' if '?' in path else '?'}done={answer.done}"
    location = (b"location", path.encode())
    status = 303
    if request.headers.get("hx-request") == "true":
        location, status = (b"hx-redirect", path.encode()), 200
    await reply(send, status, [location, (b"cache-control", b"no-store")], b"")
