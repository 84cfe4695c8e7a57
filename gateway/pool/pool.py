"""The upstream keys of this process: which there are, which may be used, and how busy each is.

`refresh` reads them from Postgres every few seconds, so what an admin changes and what another process learnt
(a rest is written down) arrives here too. Secrets are opened once and kept in memory only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import select

from gateway import errors
from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.db.tables import upstream_keys
from gateway.pool.health import HEALTHY, Health, Use, after
from gateway.pool.read_budget import ReadBudgets, Reserve
from gateway.pool.rests import Change, left
from gateway.pool.selection import Candidate, choose
from gateway.pool.vault import Vault, VaultError
from gateway.upstream.outcomes import Outcome, Verdict

log = logging.getLogger("gateway.pool")

LONGEST_RETRY_SECONDS = 10.0  # an SDK waits that long before its user hears what is wrong


@dataclass(frozen=True, slots=True)
class UpstreamKey:
    """One pooled key. `secret` never leaves `pool/`, `upstream/` and the wire."""

    id: UUID
    label: str
    account: str
    secret: str = field(repr=False)
    weight: int
    max_in_flight: int | None
    state: str


@dataclass(slots=True)
class Lease:
    """One call's use of a key. Give it back with `Pool.report` or, when nothing came of it, `Pool.release`."""

    key: UpstreamKey
    use: Use
    open: bool = True


class Pool:
    """Leases keys and learns from what became of the calls."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        random: Random | None = None,
        *,
        reads_per_second: float = 5.0,
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - balances load, guards nothing
        self._keys: dict[UUID, UpstreamKey] = {}
        self._sealed: dict[UUID, bytes] = {}
        self._health: dict[UUID, Health] = {}
        self._busy: dict[tuple[UUID, Use], int] = {}
        self._budgets = ReadBudgets(reads_per_second)
        self._writes: set[asyncio.Task[None]] = set()
        self._unwritten: Counter[UUID] = Counter()  # our words on a key that are on their way to Postgres
        self._written: dict[UUID, float] = {}  # when the last one was there
        self._refreshing = asyncio.Lock()  # an older reading must not overwrite a newer one

    @property
    def keys(self) -> list[UpstreamKey]:
        """Every key that is not removed, also those that may not be used now."""
        return list(self._keys.values())

    def accounts(self) -> set[str]:
        """The accounts that still have a key for new calls."""
        return {key.account for key in self._keys.values() if key.state == "active"}

    def ready_accounts(self) -> set[str]:
        """The accounts with a key that could take a paid call now."""
        active = (key for key in self._keys.values() if key.state == "active")
        awake = (key for key in active if not self._rests(key, Use.PAID))
        return {key.account for key in awake if not self._candidate(key, Use.PAID).full}

    def lease_paid(self, serves: Callable[[UpstreamKey], bool], without: Iterable[UUID] = ()) -> Lease:
        """A key for a new paid call among those that `serves` accepts.

        Raises GatewayError 429 when every usable key is cooling down after Pixapi's 429, else 503.
        """
        tried = set(without)
        active = [key for key in self._keys.values() if key.state == "active" and serves(key)]
        return self._lease([key for key in active if key.id not in tried], Use.PAID)

    def lease_read(self, account: str, preferred: UUID | None = None) -> Lease:
        """A key that can read this account's tasks and models: the preferred one, else a sibling.

        A disabled, refused or removed key reads nothing; a draining one still does. Raises like `lease_paid`.
        """
        able = self.readers(account)
        own = [key for key in able if key.id == preferred and not self._rests(key, Use.READ)]
        return self._lease(own or able, Use.READ)

    def readers(self, account: str) -> list[UpstreamKey]:
        """The keys that can read this account's tasks, resting ones too."""
        return [
            key
            for key in self._keys.values()
            if key.account == account and key.state in ("active", "draining")
        ]

    def take_task_read(self, account: str, preferred: UUID, *, due: bool) -> Lease | None:
        """A lease for one read of a task within the reads a second of a key; None when there is none now.

        `due` for the reconciler's reads, which go before clients' polls where it comes to that.
        """
        now = self._clock.monotonic()
        for key in sorted(self.readers(account), key=lambda key: key.id != preferred):
            if not self._rests(key, Use.READ) and self._budgets.of(key.id).take(now, due=due):
                return self._lease([key], Use.READ)
        return None

    def read_room(self) -> dict[str, int]:
        """How many task reads could be made at once, by account."""
        now = self._clock.monotonic()
        found: dict[str, int] = {}
        for key in self._awake_readers():
            found[key.account] = found.get(key.account, 0) + self._budgets.of(key.id).room(now)
        return found

    def reads_open_in(self) -> float:
        """Seconds until a key has room for a task read that has none now; infinite when none is full."""
        keys = (key.id for key in self._awake_readers())
        return self._budgets.opens_in(keys, self._clock.monotonic())

    def reserve_reads(self, account: str, reserve: Reserve) -> None:
        """Keeps a part of the account's task reads from clients' polls for a short time."""
        for key in self.readers(account):
            self._budgets.of(key.id).reserve(reserve, self._clock.monotonic())

    def report(self, lease: Lease, outcome: Outcome) -> None:
        """Gives the lease back and notes what the outcome says about the key."""
        self.release(lease)
        before = self._health.get(lease.key.id, HEALTHY)
        now = self._clock.monotonic()
        health = after(before, lease.use, outcome, now)
        if health is before:
            return
        self._health[lease.key.id] = health
        if health.rests(lease.use, now):
            log.warning(
                "upstream key rests",
                extra={"upstream_key": lease.key.label, "reason": health.reason, "use": lease.use.value},
            )
        self._write_down(Change(lease.key.id, before, health, now, outcome.verdict is Verdict.ANSWERED))

    def release(self, lease: Lease) -> None:
        """Gives the lease back without a word about the key; a second time does nothing."""
        if lease.open:
            lease.open = False
            self._busy[lease.key.id, lease.use] -= 1

    async def refresh(self) -> None:
        """Reads keys, states and rests from Postgres."""
        async with self._refreshing:
            asked = self._clock.monotonic()
            async with self._database.autocommit() as connection:
                rows = (await connection.execute(_KEYS)).all()
            self._take_over(rows, asked)

    def _take_over(self, rows: Sequence[Any], asked: float) -> None:
        now = self._clock.monotonic()
        self._keys = {row.id: key for row in rows if (key := self._open(row)) is not None}
        self._sealed = {row.id: row.secret for row in rows}
        self._budgets.keep(self._keys)
        # What this process noted after it asked is newer than what it was told.
        told = {key for key, at in self._written.items() if at >= asked}
        newer = {key: self._health[key] for key in told | set(+self._unwritten)}
        self._health = {row.id: _health_of(row, now) for row in rows} | newer

    async def close(self) -> None:
        """Waits for rests that are being written down."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=2)

    def _awake_readers(self) -> list[UpstreamKey]:
        able = (key for key in self._keys.values() if key.state in ("active", "draining"))
        return [key for key in able if not self._rests(key, Use.READ)]

    def _lease(self, keys: list[UpstreamKey], use: Use) -> Lease:
        if not keys:
            raise no_key()
        awake = [key for key in keys if not self._rests(key, use)]
        if not awake:
            raise self._all_rest(keys, use)
        chosen = choose([self._candidate(key, use) for key in awake], self._random)
        if chosen is None:
            raise errors.upstream_unavailable(
                "Every upstream key is at its cap of calls in flight; nothing was sent. Try again shortly, or ask "
                "the platform team for more keys.",
                "upstream_keys_full",
                retry_after=2,
            )
        self._busy[chosen.id, use] = self._busy.get((chosen.id, use), 0) + 1
        return Lease(self._keys[chosen.id], use)

    def _all_rest(self, keys: list[UpstreamKey], use: Use) -> errors.GatewayError:
        now = self._clock.monotonic()
        resting = [self._health[key.id] for key in keys]
        wait = max(1.0, min(health.until(use) for health in resting) - now)
        throttled = [health for health in resting if health.reason == "throttled"]
        if throttled:
            wait = max(1.0, min(health.until(use) for health in throttled) - now)
            return errors.rate_limited(
                "Pixapi asked every usable upstream key to slow down; nothing was sent.",
                "upstream_throttled",
                wait,
            )
        return errors.upstream_unavailable(
            "Every upstream key is refused by Pixapi or out of credits; nothing was sent. The platform team sees "
            "why with 'pixapi-gateway upstream-keys list'.",
            "upstream_keys_resting",
            retry_after=min(wait, LONGEST_RETRY_SECONDS),
        )

    def _rests(self, key: UpstreamKey, use: Use) -> bool:
        return self._health.get(key.id, HEALTHY).rests(use, self._clock.monotonic())

    def _candidate(self, key: UpstreamKey, use: Use) -> Candidate:
        cap = key.max_in_flight if use is Use.PAID else None
        return Candidate(key.id, self._busy.get((key.id, use), 0), key.weight, cap)

    def _open(self, row: Any) -> UpstreamKey | None:
        known = self._keys.get(row.id)
        if known is not None and self._sealed.get(row.id) == row.secret:
            secret = known.secret
        else:
            try:
                secret = self._vault.open(row.id, row.secret)
            except VaultError as error:
                log.error(
                    "upstream key cannot be opened", extra={"upstream_key": row.label, "reason": str(error)}
                )
                return None
        return UpstreamKey(row.id, row.label, row.account, secret, row.weight, row.max_in_flight, row.state)

    def _write_down(self, change: Change) -> None:
        self._unwritten[change.key] += 1
        task = asyncio.create_task(self._store(change))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _store(self, change: Change) -> None:
        try:
            async with self._database.autocommit() as connection:
                statement = change.statement(self._clock.monotonic())
                if statement is not None:
                    await connection.execute(statement)
        except errors.GatewayError:
            log.warning("a rest was not written down", extra={"upstream_key": str(change.key)})
        finally:
            self._unwritten[change.key] -= 1
            self._written[change.key] = self._clock.monotonic()


def no_key() -> errors.GatewayError:
    """503: the pool has nothing for this call."""
    return errors.upstream_unavailable(
        "No upstream key can serve this call; nothing was sent. The platform team adds one with "
        "'pixapi-gateway upstream-keys add'.",
        "no_upstream_key",
        retry_after=10,
    )


def _health_of(row: Any, now: float) -> Health:
    """What Postgres says of a key's rests; another process, or an admin's `enable`, may have changed them."""
    return Health(
        paid_until=now + float(row.paid_rest or 0),
        reads_until=now + float(row.reads_rest or 0),
        reason=row.rest_reason,
        refusals=row.rest_count,
    )


_KEYS = (
    select(
        upstream_keys,
        left(Use.PAID).label("paid_rest"),
        left(Use.READ).label("reads_rest"),
    )
    .where(upstream_keys.c.removed_at.is_(None))
    .order_by(upstream_keys.c.id)
)
