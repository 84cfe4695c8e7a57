"""What the dashboard is made of: a row of its table, a call of one row, and what handlers work with and answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from gateway.access.admin_sessions import Session
from gateway.access.admin_tokens import Role
from gateway.admin.api.binding import invoke
from gateway.admin.api.route import AdminApi, AdminRoute
from gateway.admin.api.routes import ROUTES
from gateway.catalog.price_file import PriceFile
from gateway.pages.display import Text
from gateway.pages.view import View
from gateway.pool.pool import Pool

NOTHING: Mapping[str, Any] = MappingProxyType({})
API: Mapping[tuple[str, str], AdminRoute] = MappingProxyType({(row.method, row.path): row for row in ROUTES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """The collaborators of every page. `public_url` is the origin people use, when it was configured."""

    api: AdminApi
    prices: PriceFile
    pool: Pool
    public_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCall:
    """One request of a signed-in person. `query` and `form` hold each field once; of a field that was sent several
    times, such as ticked boxes, `several` holds all values."""

    dashboard: Dashboard
    session: Session
    view: View
    params: Mapping[str, str]
    query: Mapping[str, str]
    origin: str  # where browsers reach the gateway
    form: Mapping[str, str]
    several: Mapping[str, Sequence[str]]

    @property
    def text(self) -> Text:
        return self.view.text

    async def ask(self, path: str, query: Mapping[str, Any] = NOTHING, **params: str) -> Any:
        """The answer of a reading row of the admin API, for who is signed in."""
        return await self._run("GET", path, params, query, NOTHING)

    async def change(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] = NOTHING,
        query: Mapping[str, Any] = NOTHING,
        **params: str,
    ) -> Any:
        """The answer of a changing row: checked, announced and written to the audit as for any other caller."""
        return await self._run(method, path, params, query, body)

    async def _run(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        query: Mapping[str, Any],
        body: Mapping[str, Any],
    ) -> Any:
        row = API[method, path]
        return await invoke(self.dashboard.api, row, self.session.principal, params, query, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Html:
    """A page: its template below `admin/` and the values in it. `images_from` lets pictures of these origins in.

    A `live` one is a part of a page that is asked for again and again: who has it already is answered 304.
    """

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    once: bool = False  # it shows a secret nobody can see again: nothing on it leads away by a click
    images_from: Sequence[str] = ()
    live: bool = False


@dataclass(frozen=True, slots=True)
class Goto:
    """303 to a page of ours; `done` names what was done, for the line on top of that page (`notices.py`)."""

    path: str
    done: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A CSV file under this name."""

    name: str
    text: str


Answer = Html | Goto | Download
Handler = Callable[[PageCall], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One row of the table: `path` below `/admin`, and the least role it takes."""

    method: Literal["GET", "POST"]
    path: str
    role: Role
    handler: Handler
