"""Webhooks: where alerts are sent. Their signing secrets are sealed under the master keys, each bound to its row."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.alerts.messages import Format, new_secret, origin
from gateway.db import audit
from gateway.db.changes import described, frozen, listed, stored
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import alert_deliveries, webhooks
from gateway.ids import uuid7
from gateway.pool.vault import Vault

KEY_BYTES = 32
GIVEN_UP = "given up: the webhook was disabled"
_ORDER = Keyset("webhooks", webhooks.c.id)
_COLUMNS = [column for column in webhooks.c if column.name != "secret"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook without its secret; `kinds` None: every kind of alert."""

    id: UUID
    url: str
    format: Format
    kinds: tuple[str, ...] | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime

    @property
    def origin(self) -> str:
        return origin(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What a webhook is made of."""

    url: str
    format: Format = "standard"
    kinds: tuple[str, ...] | None = None


async def add(connection: AsyncConnection, actor: str, vault: Vault, new: NewWebhook) -> tuple[Webhook, str]:
    """A new webhook, enabled, and its secret, which is shown this once."""
    row_id, secret = uuid7(), new_secret(secrets.token_bytes(KEY_BYTES))
    statement = webhooks.insert().values(
        id=row_id,
        url=new.url,
        format=new.format,
        kinds=None if new.kinds is None else list(new.kinds),
        secret=vault.seal(row_id, secret),
    )
    webhook = _webhook((await connection.execute(statement.returning(*_COLUMNS))).one())
    await _record(connection, actor, "webhook.add", webhook, listed(webhook, ("origin", "format", "kinds")))
    return webhook, secret


async def find(connection: AsyncConnection, webhook: str, *, lock: bool = False) -> Webhook:
    """The webhook with this id; 404 when there is none."""
    row = None
    if (ident := _id_in(webhook)) is not None:
        query = select(*_COLUMNS).where(webhooks.c.id == ident)
        row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise errors.not_found("There is no webhook with this id.", "webhook_not_found")
    return _webhook(row)


async def page(connection: AsyncConnection, which: PageOf) -> Page[Webhook]:
    """One page of all webhooks."""
    return await _ORDER.read(connection, select(*_COLUMNS), which, _webhook)


async def enabled(connection: AsyncConnection) -> list[Webhook]:
    """Every webhook that is sent to, kept from being removed until the transaction ends."""
    query = select(*_COLUMNS).where(webhooks.c.enabled).order_by(webhooks.c.id)
    rows = await connection.execute(query.with_for_update(read=True, key_share=True))
    return [_webhook(row) for row in rows]


async def update(
    connection: AsyncConnection, actor: str, webhook: str, changes: Mapping[str, object]
) -> Webhook:
    """The webhook with url, format, kinds or enabled changed; 404. Disabled, what it still waits for has failed."""
    before = await find(connection, webhook, lock=True)
    changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
    if not changed:
        return before
    if "enabled" in changed:
        changed["disabled_reason"] = None if changed["enabled"] else f"by {actor}"
    after = await _change(connection, before, changed)
    shown = ["origin" if name == "url" else name for name in changed]
    await _record(connection, actor, "webhook.update", after, described(before, after, shown))
    return after


async def give_up(connection: AsyncConnection, webhook_id: UUID, reason: str) -> None:
    """Disables the webhook because its receiver says so; nothing when that was done, or it is gone."""
    query = select(*_COLUMNS).where(webhooks.c.id == webhook_id, webhooks.c.enabled).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return
    after = await _change(connection, _webhook(row), {"enabled": False, "disabled_reason": reason})
    await _record(connection, "gateway", "webhook.disable", after, {"reason": reason})


async def remove(connection: AsyncConnection, actor: str, webhook: str) -> Webhook:
    """Takes the webhook out for good, its deliveries with it; 404."""
    before = await find(connection, webhook, lock=True)
    await connection.execute(webhooks.delete().where(webhooks.c.id == before.id))
    await _record(connection, actor, "webhook.remove", before, {"origin": before.origin})
    return before


async def _change(connection: AsyncConnection, before: Webhook, changed: Mapping[str, object]) -> Webhook:
    statement = webhooks.update().where(webhooks.c.id == before.id).values(**stored(changed))
    after = _webhook((await connection.execute(statement.returning(*_COLUMNS))).one())
    if before.enabled and not after.enabled:
        waiting = alert_deliveries.update().where(
            alert_deliveries.c.webhook_id == after.id, alert_deliveries.c.state == "pending"
        )
        await connection.execute(waiting.values(state="failed", last_error=GIVEN_UP))
    return after


async def _record(
    connection: AsyncConnection, actor: str, action: str, webhook: Webhook, detail: dict[str, object]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=("webhook", str(webhook.id)), detail=detail
    )


def _id_in(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(**frozen(dict(row._mapping)))  # type: ignore[arg-type]
