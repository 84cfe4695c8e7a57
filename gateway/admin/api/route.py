"""What the admin API is made of: a row of its table, a call of one row, and what handlers work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

from gateway.access.admin_tokens import Role
from gateway.access.key_format import Peppers
from gateway.access.session_rules import SessionRules
from gateway.admin.api.requests import Nothing
from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.pool.vault import Vault

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Topic = Literal["team", "key", "upstream-key"]
Body = TypeVar("Body", bound=BaseModel)
Query = TypeVar("Query", bound=BaseModel)


class Changed(Protocol):
    """Told of every change that caches may hold, after it was committed; sees to it that all processes forget it."""

    async def announce(self, topic: Topic, ident: str) -> None:
        """`ident` is the team's id, the key's public id or the upstream key's id. Must neither raise nor take long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApi:
    """The collaborators of every handler."""

    database: Database
    peppers: Peppers
    vault: Vault
    clock: Clock
    changed: Changed
    sessions: SessionRules


@dataclass(frozen=True, slots=True)
class AdminCall(Generic[Body, Query]):
    """One authenticated and validated call; `params` are the path's."""

    actor: str
    role: Role
    params: Mapping[str, str]
    body: Body
    query: Query


Handler = Callable[[AdminApi, AdminCall[Any, Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One row of the table: `path` below `/admin/api`, the least `role` it takes, what it reads and answers."""

    method: Method
    path: str
    role: Role
    handler: Handler
    answer: Any
    summary: str
    _: KW_ONLY
    status: int = 200
    body: type[BaseModel] = Nothing
    query: type[BaseModel] = Nothing
    failures: frozenset[int] = frozenset()  # beyond those that its method, path and query bring

    @property
    def operation(self) -> str:
        """A name for this row that no other has, such as `teams_create` or `teams_quotas_put`."""
        above = self.path.split("/")[1].partition(".")[0].replace("-", "_")
        room = self.handler.__module__.rpartition(".")[2]
        return "_".join(dict.fromkeys((above, room, self.handler.__name__)))
