"""Upstream keys: what the gateway calls Pixapi with. Sealed when they come in; the secret never leaves here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.db import audit
from gateway.db.changes import described, listed
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, tasks, upstream_keys
from gateway.ids import uuid7
from gateway.pool import rests
from gateway.pool.vault import Vault

KeyState = Literal["active", "draining", "disabled", "refused"]
SECRET = re.compile(r"[!-~]{8,512}")  # printable ASCII without spaces
_INSIDE = frozenset({"secret", "fingerprint", "rest_count", "checking_until", "trial_until", "removed_at"})
# Of rests only what is in force: one that is over stays in the row until the next paid answer.
_COLUMNS = [rests.SHOWN.get(column.name, column) for column in upstream_keys.c if column.name not in _INSIDE]
_ORDER = Keyset("upstream_keys", upstream_keys.c.id)
_RESTED: dict[str, object] = dict.fromkeys(
    ("paid_rests_until", "reads_rest_until", "rest_reason", "next_check_at")
)
_INNER_RESTED: dict[str, object] = {"rest_count": 0, "checking_until": None, "trial_until": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamKey:
    """A key of the pool as stored, without its secret. Keys of one `account` can read each other's tasks.

    `active` keys are used; `draining` ones only for reads of the tasks they submitted, `disabled` and `refused`
    ones not at all. The two rests are set by the pool after refusals, for paid calls and reads apart; with a
    `next_check_at` the key goes on resting until Pixapi's model list accepts it.
    """

    id: UUID
    label: str
    account: str
    last4: str
    weight: int
    max_in_flight: int | None
    state: KeyState
    state_reason: str | None
    state_changed_at: datetime
    paid_rests_until: datetime | None
    reads_rest_until: datetime | None
    rest_reason: str | None
    next_check_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpstreamKey:
    """What a key is made of. `secret` fits `SECRET`; the account defaults to the label."""

    label: str
    secret: str
    account: str | None = None
    weight: int = 1
    max_in_flight: int | None = None

    def __repr__(self) -> str:
        return f"NewUpstreamKey({self.label!r})"


async def add(connection: AsyncConnection, actor: str, vault: Vault, new: NewUpstreamKey) -> UpstreamKey:
    """A new key of the pool, active at once; 409 when its label or its secret is there already."""
    fingerprints = vault.fingerprints(new.secret)
    await _refuse_double(connection, new.label, fingerprints)
    row_id = uuid7()
    statement = upstream_keys.insert().values(
        id=row_id,
        label=new.label,
        account=new.account or new.label,
        secret=vault.seal(row_id, new.secret),
        fingerprint=fingerprints[0],
        last4=new.secret[-4:],
        weight=new.weight,
        max_in_flight=new.max_in_flight,
    )
    try:
        key = _key((await connection.execute(statement.returning(*_COLUMNS))).one())
    except IntegrityError:
        raise _taken("The label or the secret was stored by someone else just now.") from None
    detail = listed(key, ("label", "account", "weight", "max_in_flight"))
    await _record(connection, actor, "upstream-key.add", key, detail)
    return key


async def find(connection: AsyncConnection, key: str, *, lock: bool = False) -> UpstreamKey:
    """The key with this id or label; 404 when there is none, or none any more."""
    where = upstream_keys.c.label == key
    if looks_like_id(key):
        where = upstream_keys.c.id == UUID(key)
    query = select(*_COLUMNS).where(where, upstream_keys.c.removed_at.is_(None))
    row = (await connection.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if row is None:
        raise errors.not_found("There is no upstream key with this id or label.", "upstream_key_not_found")
    return _key(row)


async def has_secret(connection: AsyncConnection, vault: Vault, key: UUID, secret: str) -> bool:
    """Whether this is the stored key's secret."""
    stored = select(upstream_keys.c.fingerprint).where(upstream_keys.c.id == key)
    return bool((await connection.execute(stored)).scalar_one() in vault.fingerprints(secret))


async def page(connection: AsyncConnection, which: PageOf) -> Page[UpstreamKey]:
    """One page of all keys that were not removed."""
    query = select(*_COLUMNS).where(upstream_keys.c.removed_at.is_(None))
    return await _ORDER.read(connection, query, which, _key)


async def update(
    connection: AsyncConnection, actor: str, key: str, changes: Mapping[str, object]
) -> UpstreamKey:
    """The key with label, account, weight or max_in_flight changed; 404, or 409 when a new label is taken."""
    before = await find(connection, key, lock=True)
    changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
    if "label" in changed:
        await _refuse_double(connection, str(changed["label"]), [])
    return await _change(connection, actor, before, "upstream-key.update", changed)


async def drain(connection: AsyncConnection, actor: str, key: str) -> UpstreamKey:
    """No new paid calls with this key; its tasks are still read. Repeating it changes nothing."""
    return await _turn(connection, actor, key, ("upstream-key.drain", "draining"))


async def disable(connection: AsyncConnection, actor: str, key: str) -> UpstreamKey:
    """No call at all with this key. Repeating it changes nothing."""
    return await _turn(connection, actor, key, ("upstream-key.disable", "disabled"))


async def enable(connection: AsyncConnection, actor: str, key: str) -> UpstreamKey:
    """The key is used again and its rests are forgotten, those too that are not written down yet."""
    return await _turn(connection, actor, key, ("upstream-key.enable", "active"))


async def remove(connection: AsyncConnection, actor: str, key: str, *, force: bool = False) -> UpstreamKey:
    """Takes the key out for good and forgets its secret; 404.

    409 when tasks it submitted have not ended and no other key of its account can read them, unless `force`.
    """
    before = await find(connection, key, lock=True)
    orphans = await _orphans(connection, before)
    if orphans and not force:
        raise errors.conflict(
            f"{orphans} unfinished {'tasks' if orphans > 1 else 'task'} can only be read with this key. Drain it "
            "and wait until they have ended, or remove it by force: their holds then become unknown.",
            "unfinished_tasks",
        )
    statement = upstream_keys.update().where(upstream_keys.c.id == before.id)
    await connection.execute(statement.values(removed_at=NOW, secret=b""))
    detail: dict[str, object] = {"label": before.label}
    if orphans:
        detail["unfinished_tasks"] = orphans
    await _record(connection, actor, "upstream-key.remove", before, detail)
    return before


def looks_like_id(text: str) -> bool:
    """Whether `text` would be read as a key's id rather than its label."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


async def _turn(connection: AsyncConnection, actor: str, key: str, verb: tuple[str, KeyState]) -> UpstreamKey:
    action, state = verb
    before = await find(connection, key, lock=True)
    wanted: dict[str, object] = {"state": state, "state_reason": None if state == "active" else f"by {actor}"}
    if state == "active":
        wanted |= _RESTED
    if before.state == state:
        del wanted["state_reason"]
    changed = {name: value for name, value in wanted.items() if getattr(before, name) != value}
    if (
        changed or state == "active"
    ):  # a rest that a process noted before `enable` must not come back after it
        changed["state_changed_at"] = NOW
    return await _change(connection, actor, before, action, changed)


async def _change(
    connection: AsyncConnection, actor: str, before: UpstreamKey, action: str, changed: Mapping[str, object]
) -> UpstreamKey:
    if not changed:
        return before
    # Also what is over, and so not shown.
    values = {**changed, **_RESTED, **_INNER_RESTED} if action == "upstream-key.enable" else changed
    statement = upstream_keys.update().where(upstream_keys.c.id == before.id).values(**values)
    try:
        after = _key((await connection.execute(statement.returning(*_COLUMNS))).one())
    except IntegrityError:
        raise _taken("The label was taken by someone else just now.") from None
    names = [name for name in changed if name != "state_changed_at"]
    if names:
        await _record(connection, actor, action, after, described(before, after, names))
    return after


async def _refuse_double(connection: AsyncConnection, label: str, fingerprints: list[bytes]) -> None:
    table = upstream_keys.c
    same = table.fingerprint.in_(fingerprints)
    query = select(table.label, same.label("same")).where(
        table.removed_at.is_(None), or_(table.label == label, same)
    )
    for row in await connection.execute(query):
        if row.same:
            raise _taken(f"secret: this key is already stored as '{row.label}'")
        raise _taken(f"label: '{label}' belongs to another upstream key")


async def _orphans(connection: AsyncConnection, key: UpstreamKey) -> int:
    table = upstream_keys.c
    others = select(table.id).where(
        table.account == key.account,
        table.id != key.id,
        table.removed_at.is_(None),
        table.state.in_(("active", "draining")),
    )
    query = select(func.count()).where(
        tasks.c.upstream_key_id == key.id, tasks.c.ended_at.is_(None), ~others.exists()
    )
    return int((await connection.execute(query)).scalar_one())


async def _record(
    connection: AsyncConnection, actor: str, action: str, key: UpstreamKey, detail: dict[str, object]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=("upstream-key", str(key.id)), detail=detail
    )


def _taken(message: str) -> errors.GatewayError:
    return errors.conflict(message, "upstream_key_exists")


def _key(row: Row[Any]) -> UpstreamKey:
    return UpstreamKey(**row._mapping)
