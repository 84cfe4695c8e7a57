"""The form for an admin token, and the pages that say why signing in did not work."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway.admin.callers import Callers
from gateway.clock import Clock
from gateway.pages.rendering import Pages
from gateway.pages.view import LOOK_COOKIE, View, view_of


class SignInPages:
    """Renders both; `provider` offers single sign-on beside the form."""

    def __init__(self, pages: Pages, callers: Callers, clock: Clock, *, provider: bool) -> None:
        self._pages = pages
        self._callers = callers
        self._clock = clock
        self._provider = provider

    def form(self, request: HTTPConnection, next_path: str, wrong: str | None = None) -> bytes:
        """The form; `wrong` says why the last try failed."""
        view = self._view(request)
        said = None if wrong is None else view.text(wrong)
        return self._pages.render("sign_in.html", view, next=next_path, wrong=said, provider=self._provider)

    def notice(self, request: HTTPConnection, title: str, text: str, next_path: str) -> bytes:
        """Why signing in did not work, and the way back."""
        view = self._view(request)
        return self._pages.render("notice.html", view, heading=view.text(title), said=text, next=next_path)

    def _view(self, request: HTTPConnection) -> View:
        return view_of(request, self._callers.read(request, LOOK_COOKIE), self._clock.now())
