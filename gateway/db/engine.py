"""The gateway's Postgres: one engine, and connections whose failures are ours.

A connection is taken for one transaction and given back; none is ever held while Pixapi is asked, save one that lies
ready for the next call of a function (`lending`), which whoever finds the pool empty takes. What the driver raises
becomes a 503 `dependency_unavailable` here, so nothing above knows SQLAlchemy's exceptions, save
`IntegrityError`, which is an answer and not a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway import errors
from gateway.db.connection import TimedConnection
from gateway.db.direct import Direct
from gateway.db.lending import Lending
from gateway.patience import POSTGRES
from gateway.waiting import within

T = TypeVar("T")
IDLE_SECONDS = 5.0  # a connection that was used since is not asked first whether the server is there
LOCK_NOT_AVAILABLE = "55P03"
READ_ONLY = "25006"  # the SQLSTATE of a standby that has not taken over yet


class Database:
    """Opens connections on one URL with the limits of `database.*`; times in seconds."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_wait: float = 1.0,
        statement_timeout: float = 2.0,
        lock_timeout: float = 1.0,
    ) -> None:
        self.statement_timeout = statement_timeout
        self.lock_timeout = lock_timeout
        self._pool_size = pool_size
        self._engine = _engine(url, pool_size, pool_wait, statement_timeout, lock_timeout)
        self._lending = Lending(self._engine, pool_size, IDLE_SECONDS)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, rolled back when it raises.

        Raises GatewayError 503 when Postgres cannot be asked; lets IntegrityError through.
        """
        with translated():
            async with self._connected() as plain:
                connection = await plain.execution_options(isolation_level="READ COMMITTED")
                try:
                    async with connection.begin():
                        yield connection
                finally:
                    await _end_with(connection)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which every statement commits alone: reads, and verbs of one statement."""
        with translated():
            async with self._connected() as connection:
                yield connection

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            with self._lending.asked():
                connection = await stack.enter_async_context(self._engine.connect())
            yield connection

    async def call(self, function: str, *arguments: object) -> list[Any]:
        """`ask` a function in the schema."""
        return await self._rows(_calling(function, len(arguments)), arguments)

    async def ask(self, statement: Direct, **values: object) -> list[Any]:
        """The rows, as named tuples, of a statement; it commits alone. Raises as `autocommit` does.

        This is for what every paid call asks: it goes to the driver at once, for SQLAlchemy's own way to a statement
        and back takes as long as the statement.
        """
        return await self._rows(statement.text, statement.arguments(values))

    async def _rows(self, statement: bytes, arguments: Sequence[object]) -> list[Any]:
        with translated():
            lent = await self._lending.take()
            try:
                rows = await lent.driver.rows(statement, arguments)
            except BaseException as error:
                cancelled = not isinstance(error, psycopg.Error)
                await self._lending.spoil(lent, error, cut=lent.driver.closed, unsure=cancelled)
                raise
            self._lending.leave(lent)
            return rows

    async def revision(self) -> str | None:
        """The migration the schema is at, None when there is none."""
        async with self.autocommit() as connection:
            found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    def connections(self) -> tuple[int, int]:
        """Connections in use now, and how many more may be."""
        in_use = self._engine.pool.checkedout()  # type: ignore[attr-defined]
        in_use -= self._lending.free
        return in_use, self._pool_size - in_use

    async def close(self) -> None:
        self._lending.close()
        await self._engine.dispose()


class LockedError(errors.GatewayError):
    """503: somebody else held a row for longer than `database.lock_timeout`. Nothing was changed."""

    def __init__(self) -> None:
        one = _silent()
        super().__init__(one.status, one.type, one.reason, one.message, retry=one.retry, headers=one.headers)


class StatementRefusedError(Exception):
    """Postgres refused a statement for what it says, not because it could not be asked: a defect of ours."""


async def allow(connection: AsyncConnection, seconds: int) -> None:
    """Statements of this transaction may take so long."""
    await connection.execute(text(f"SET LOCAL statement_timeout = '{seconds}s'"))
    driver: Any = (await connection.get_raw_connection()).driver_connection
    driver.statement_seconds = float(seconds)


async def promptly(work: Awaitable[T]) -> T:
    """The result of database work that a request waits for; GatewayError 503 when there is none in the time that it
    has for Postgres in all.

    A server that has gone silent answers neither the statement nor the request to cancel it, so the work is left to
    itself instead of being cancelled: it ends when the server comes back, or when its connection hangs up.
    """
    future = work if isinstance(work, asyncio.Future) else asyncio.ensure_future(work)
    purse = POSTGRES.current()
    began = monotonic()
    done = await within(future, POSTGRES.seconds if purse is None else purse.left)
    if purse is not None:
        purse.spend(monotonic() - began)
    if done:
        return future.result()
    future.add_done_callback(_retrieve)
    raise _silent()


@cache
def _calling(function: str, arguments: int) -> bytes:
    places = ", ".join(f"${number}" for number in range(1, arguments + 1))
    return f"SELECT * FROM {function}({places})".encode()  # noqa: S608 - our own name


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # the one who asked has been answered already


def _silent() -> errors.GatewayError:
    return errors.dependency_unavailable(
        "The gateway's database did not answer; nothing was sent to Pixapi. Try again shortly."
    )


@contextmanager
def translated() -> Iterator[None]:
    """What the driver raises inside, as this module's errors; `Database`'s connections have it around them already."""
    try:
        yield
    except psycopg.Error as error:  # of `Database.call`
        wrapped = exc.DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True)
        ours = _ours(wrapped)
        raise ours from (error if ours is wrapped else wrapped)
    except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
        ours = _ours(error)
        if ours is error:
            raise
        raise ours from error


def _ours(error: BaseException) -> BaseException:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(error, exc.IntegrityError):
        return error
    if state != READ_ONLY and isinstance(error, _REFUSED):
        return StatementRefusedError(str(error.orig))
    return LockedError() if state == LOCK_NOT_AVAILABLE else _silent()


_REFUSED = (exc.DataError, exc.ProgrammingError, exc.InternalError, exc.NotSupportedError)


async def _end_with(connection: AsyncConnection) -> None:
    """Whoever took it next would write into a transaction that nobody commits. (`_checkin` is too late to see one: the
    way back to autocommit comes before it.)"""
    if connection.invalidated or connection.closed:
        return
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if driver.info.transaction_status != TransactionStatus.IDLE:
        await connection.invalidate()


def _engine(
    url: str, pool_size: int, pool_wait: float, statement_timeout: float, lock_timeout: float
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_wait,
        # What most ask for, so nothing has to be said on the way in and out; see `_checkin` and `_checkout`.
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        pool_recycle=1800,
        hide_parameters=True,  # an error in a log line must not hold what was to be stored
        connect_args={
            "async_creator_fn": partial(_connect, statement_timeout),
            "connect_timeout": 2,  # libpq's smallest
            "tcp_user_timeout": 4000,
            # No prepared statements: a migration under a running gateway would break those whose result it changes,
            # and PgBouncer in transaction mode loses them.
            "prepare_threshold": None,
            "application_name": "pixapi-gateway",
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _limit(connection: object, _record: object) -> None:
        # SET rather than start-up options: PgBouncer refuses those.
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(
            f"SELECT set_config('statement_timeout', '{int(statement_timeout * 1000)}', false),"
            f" set_config('lock_timeout', '{int(lock_timeout * 1000)}', false),"
            " set_config('timezone', 'UTC', false)"
        )
        connection.commit()  # type: ignore[attr-defined]
        cursor.close()

    @event.listens_for(engine.sync_engine, "checkin")
    def _checkin(connection: Any, record: Any) -> None:
        if connection is None:  # it was cut
            return
        driver: TimedConnection = connection.driver_connection
        driver.statement_seconds = statement_timeout
        if driver.info.transaction_status != TransactionStatus.IDLE:
            # Whoever took it next would write into a transaction that nobody commits.
            record.invalidate()

    @event.listens_for(engine.sync_engine, "checkout")
    def _checkout(connection: Any, _record: object, _proxy: object) -> None:
        driver: TimedConnection = connection.driver_connection
        if not driver.may_be_dead(IDLE_SECONDS):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.DisconnectionError from error  # the pool makes another

    return engine


async def _connect(statement_timeout: float, *args: Any, **options: Any) -> TimedConnection:
    connection = await TimedConnection.connect(*args, **options)
    connection.statement_seconds, connection.used_at = statement_timeout, monotonic()
    return connection
