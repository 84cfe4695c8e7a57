"""How often a client may try to sign in: failures are counted in Postgres, so all processes count together.

A token has 190 random bits, so no count is needed to keep it from being guessed; the limit bounds what guessing costs
us. It must not become a way to lock people out: each address has its own count, and a good token is never asked for it.
What failures write into the audit, which is kept for ever, is bounded over all addresses.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from ipaddress import IPv6Address, IPv6Network

from sqlalchemy import case, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.principal import Address
from gateway.db import audit
from gateway.db.engine import Database
from gateway.db.tables import NOW, sign_in_attempts, used_sign_in_states

WINDOW = timedelta(minutes=15)
FAILURES = 10  # of one address in a window
AUDITED = (
    100  # failures of everybody in a window that are in the audit; beyond it only the metric counts them
)
AUDIT = "audit entries"  # counted beside the addresses, and none of them
STATES_ARE_KEPT = timedelta(hours=1)
_ROW = sign_in_attempts.c


class SignInAttempts:
    """Counts a try before it is made, and forgets it when it was good: many at once do not get past the limit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, client: Address | None) -> int:
        """Counts one more failure of this client and answers its number; GatewayError 429 when it has none left."""
        name = counted_as(client)
        async with self._database.autocommit() as connection:
            number = await _count(connection, name, FAILURES)
            if number is not None:
                return number
            left = await connection.scalar(
                select(func.extract("epoch", _ROW.began_at + WINDOW - NOW)).where(_ROW.address == name)
            )
        raise errors.rate_limited(
            "Too many failed sign-ins from this address. Wait until 'retry-after' has passed; nobody else is held up.",
            "sign_in_attempts",
            float(left or 1),
        )

    async def give_back(self, client: Address | None) -> None:
        """The try was good, or nobody's fault: it does not count."""
        name = counted_as(client)
        async with self._database.autocommit() as connection:
            await connection.execute(
                sign_in_attempts.update()
                .where(_ROW.address == name, _ROW.failures > 0)
                .values(failures=_ROW.failures - 1)
            )

    async def refused(self, client: Address | None, number: int, why: str) -> None:
        """Writes the first and the last failure of a client into the audit, while it has not had enough of them."""
        if number not in (1, FAILURES):
            return
        async with self._database.transaction() as connection:
            if await _count(connection, AUDIT, AUDITED) is None:
                return
            await audit.write(
                connection,
                actor="anonymous",
                action="sign-in.refuse",
                subject=("sign-in", counted_as(client)),
                detail={"reason": why, "failures": number},
            )

    async def use_state(self, state: str) -> bool:
        """Whether a provider's sign-in comes back for the first time, here or at any process."""
        digest = hashlib.sha256(state.encode()).digest()
        statement = insert(used_sign_in_states).values(digest=digest).on_conflict_do_nothing()
        async with self._database.autocommit() as connection:
            return (
                await connection.execute(statement.returning(used_sign_in_states.c.digest))
            ).first() is not None

    async def clear(self) -> None:
        """Deletes counts whose window is over, and states too old to come back."""
        async with self._database.autocommit() as connection:
            await connection.execute(sign_in_attempts.delete().where(_ROW.began_at <= NOW - WINDOW))
            used = used_sign_in_states
            await connection.execute(used.delete().where(used.c.used_at <= NOW - STATES_ARE_KEPT))


async def _count(connection: AsyncConnection, name: str, limit: int) -> int | None:
    """Counts one more under this name and answers its number in the window, None when it would be beyond the limit."""
    over = _ROW.began_at <= NOW - WINDOW
    statement = (
        insert(sign_in_attempts)
        .values(address=name, failures=1)
        .on_conflict_do_update(
            index_elements=[_ROW.address],
            set_={
                "failures": case((over, 1), else_=_ROW.failures + 1),
                "began_at": case((over, NOW), else_=_ROW.began_at),
            },
            where=or_(over, _ROW.failures < limit),
        )
        .returning(_ROW.failures)
    )
    number: int | None = await connection.scalar(statement)
    return number


def counted_as(client: Address | None) -> str:
    """The address as it is counted: IPv6 by its /64, which one machine may use as it likes."""
    if isinstance(client, IPv6Address):
        return str(IPv6Network((int(client) >> 64 << 64, 64)))
    return "unknown" if client is None else str(client)
