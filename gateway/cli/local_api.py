"""The admin API in this process: the same rows, validation and objects as over HTTP, on the database itself.

Changes are announced to the gateways that run, as those of the HTTP API are.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from gateway import errors
from gateway.access.admin_tokens import AdminPrincipal
from gateway.access.key_format import Peppers
from gateway.access.session_rules import SessionRules, bootstrap_digests
from gateway.admin.api.answers import encode
from gateway.admin.api.binding import invoke
from gateway.admin.api.route import AdminApi, Method
from gateway.admin.api.routes import ROUTES
from gateway.cli.announcing import Announcer
from gateway.cli.output import FAILED, USAGE, CommandFailed
from gateway.clock import SystemClock
from gateway.db.engine import Database, StatementRefusedError
from gateway.errors import GatewayError
from gateway.pool.vault import Vault
from gateway.settings import Settings, SettingsError, load

_NOT_MIGRATED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)
_ROWS = {(row.method, row.path): row for row in ROUTES}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a row of the table: its method and path template, and what fills them."""

    method: Method
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


class LocalApi:
    """Runs calls as `actor` with the role admin; opened and closed as an asynchronous context."""

    def __init__(self, settings: Settings, actor: str) -> None:
        self._database = Database(
            settings.database.url,
            pool_size=1,
            pool_wait=settings.database.pool_wait,
            statement_timeout=settings.database.statement_timeout,
            lock_timeout=settings.database.lock_timeout,
        )
        clock = SystemClock()
        admin, peppers = (
            settings.admin,
            Peppers([one.get_secret_value() for one in settings.secrets.key_pepper]),
        )
        bootstrap = None if admin.bootstrap_token is None else admin.bootstrap_token.get_secret_value()
        self._api = AdminApi(
            database=self._database,
            peppers=peppers,
            vault=Vault([key.get_secret_value() for key in settings.secrets.master_keys]),
            clock=clock,
            changed=Announcer(settings, clock),
            sessions=SessionRules(
                idle=admin.session_idle,
                absolute=admin.session_absolute,
                bootstrap=bootstrap_digests(peppers, bootstrap),
                issuer=admin.oidc_issuer,
            ),
        )
        self._caller = AdminPrincipal(actor, "admin")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._database.close()

    async def call(self, call: Call) -> Any:
        """The row's answer, a struct of `admin/api/answers.py`; raises GatewayError as the row does."""
        row = _ROWS[call.method, call.path]
        return await invoke(self._api, row, self._caller, call.params, call.query, call.body)


async def run(config_dir: Path | None, call: Call) -> Any:
    """The answer of one call with the settings of this process; raises CommandFailed."""
    settings = settings_for(config_dir)
    async with LocalApi(settings, operator()) as api:
        with failures():
            return await api.call(call)


@contextmanager
def failures() -> Iterator[None]:
    """What the admin API and the database raise, as CommandFailed."""
    try:
        yield
    except GatewayError as error:
        raise _failed(error) from None
    except StatementRefusedError as error:
        raise _refused(error) from None


def settings_for(config_dir: Path | None) -> Settings:
    """The settings of this process; raises CommandFailed naming every problem."""
    try:
        return load(config_dir)
    except SettingsError as error:
        message = f"the settings cannot be used:\n{error}"
        body = {"error": {"code": None, "type": "configuration_error", "message": str(error)}}
        raise CommandFailed(USAGE, message, json_text(body)) from None


def operator() -> str:
    """Who runs this command, as audit entries name it: `cli:<login>`."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def json_text(answer: object) -> str:
    """An answer as the HTTP API would send it."""
    return encode(answer).decode()


def _failed(error: GatewayError) -> CommandFailed:
    _, body = errors.render(error, "cli")
    # 400 names wrong flags, which is a matter of usage.
    return CommandFailed(USAGE if error.status == 400 else FAILED, _message(error), body.decode())


def _refused(error: StatementRefusedError) -> CommandFailed:
    cause = getattr(error.__cause__, "orig", None)
    if not isinstance(cause, _NOT_MIGRATED):
        raise error
    message = "the database is not at this release's schema; run 'pixapi-gateway db upgrade'."
    body = {"error": {"code": None, "type": "database_error", "message": message}}
    return CommandFailed(FAILED, message, json_text(body))


def _message(error: GatewayError) -> str:
    cause = getattr(error.__cause__, "orig", None)
    if isinstance(cause, psycopg.OperationalError):
        return f"{error.message} ({str(cause).splitlines()[0]})"
    return error.message
