"""Visits to a team's own pages: the browser's session, and pages rendered for it. For their door and for themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import HTTPConnection

from gateway.access.principal import Principal
from gateway.access.team_sessions import TeamSessions
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.pages.browsers import Browsers
from gateway.pages.rendering import Pages
from gateway.pages.team_addresses import FRONT, LOGIN, next_page
from gateway.pages.view import Person, View, view_of


@dataclass(frozen=True, slots=True)
class TeamVisits:
    """What every page of a team works with."""

    sessions: TeamSessions
    browsers: Browsers
    pages: Pages
    clock: Clock

    @property
    def cookie_name(self) -> str:
        return self.browsers.jar.team_session

    def cookie(self, request: HTTPConnection) -> str | None:
        """The session cookie as it was sent, alive or not."""
        return self.browsers.read(request, self.cookie_name)

    async def visitor(self, request: HTTPConnection) -> Principal | None:
        """Whose living session this browser has. A page that asks on its own keeps none alive."""
        value = self.cookie(request)
        if value is None:
            return None
        return await self.sessions.find(value, seen=not self.view(request).fragment)

    def view(self, request: HTTPConnection, who: Principal | None = None) -> View:
        """The surroundings of a page; `who` is signed in."""
        person = None if who is None else Person(name=who.team_name, role="team")
        return view_of(request, self.browsers.look(request), self.clock.now(), person)

    def render(self, template: str, view: View, **values: Any) -> bytes:
        """The page; its template lies below `team/`."""
        return self.pages.render(f"team/{template}", view, **values)

    def failed(self, view: View, error: GatewayError) -> bytes:
        """The page that says what went wrong and what to do."""
        return self.render("error.html", view, error=error)


def sign_in(view: View) -> str:
    """The form's address, with the way back to the page that was asked for."""
    target = next_page(view.address)
    return LOGIN if target == FRONT else f"{LOGIN}?next={quote(target, safe='/')}"
