"""POST /gateway/look: the language and the theme of the pages, kept by the browser for a year."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.admin.callers import Callers
from gateway.clock import Clock
from gateway.pages.forms import read_form
from gateway.pages.language import LANGUAGES
from gateway.pages.view import LOOK_COOKIE, theme_named, view_of
from gateway.proxy.relay import reply

A_YEAR = 365 * 86_400
_OWN = re.compile(r"/(?:admin|gateway)/[A-Za-z0-9_~.:/-]*(?:\?[A-Za-z0-9_~.,:=&%/+*-]*)?")


class Look:
    """Remembers what was chosen and leads back to the page it was chosen on."""

    def __init__(self, callers: Callers, clock: Clock) -> None:
        self._callers = callers
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._callers.refuse_cross_site("POST", request)
        view = view_of(request, self._callers.read(request, LOOK_COOKIE), self._clock.now())
        form = (await read_form(request)).fields
        language = next((one for one in LANGUAGES if one == form.get("language")), view.language)
        theme = theme_named(form["theme"]) if "theme" in form else view.theme
        cookie = self._callers.jar.set(LOOK_COOKIE, f"{language}.{theme}", A_YEAR)
        target = came_from(form.get("next", ""))
        await reply(send, 303, [(b"location", target.encode()), (b"cache-control", b"no-store"), cookie], b"")


def came_from(asked: str) -> str:
    """`asked` when it is the address of a page of ours, else the front page: never another site."""
    path = asked.partition("?")[0]
    if len(asked) > 1000 or not _OWN.fullmatch(asked) or "//" in path or ".." in path:
        return "/admin/"
    return asked
