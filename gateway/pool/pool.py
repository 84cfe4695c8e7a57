"""The upstream keys of this process: which there are, which may be used, and how busy each is.

`refresh` reads them from Postgres every few seconds, and when another process or an admin says that one has changed, so
what they know arrives here too. Secrets are opened once and kept in memory only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from random import Random
from uuid import UUID

from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool import rests
from gateway.pool.caps import Caps
from gateway.pool.health import (
    FAILING,
    HEALTHY,
    NO_FAILURES,
    Failures,
    Health,
    Use,
    Word,
    after,
    counted,
    is_relied_on,
)
from gateway.pool.key_ring import KeyRing, Lease, UpstreamKey
from gateway.pool.notes import Notes
from gateway.pool.read_budget import ReadBudgets, ReadFor, Reserve
from gateway.pool.refusals import all_full, all_rest, no_key
from gateway.pool.selection import Candidate, choose
from gateway.pool.vault import Vault
from gateway.upstream.outcomes import Outcome, Verdict

__all__ = ["Lease", "Pool", "UpstreamKey", "no_key"]

log = logging.getLogger("gateway.pool")

TRIAL_ELSEWHERE_SECONDS = 2.0  # how long nobody here asks again for a trial that another process has


class Pool:
    """Leases keys and learns from what became of the calls.

    `caps` holds the keys' caps over all processes, else each process does alone. `announce` is told the id of each key
    whose health was written down.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        random: Random | None = None,
        *,
        reads_per_second: float = 5.0,
        caps: Caps | None = None,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - balances load, guards nothing
        self._caps = caps
        self._failures: dict[UUID, Failures] = {}  # of keys that have some
        self._budgets = ReadBudgets(reads_per_second)
        self._notes = Notes(database, clock, announce)
        self._ring = KeyRing(database, vault, clock, self._notes.newer_than)

    @property
    def keys(self) -> list[UpstreamKey]:
        """Every key that is not removed, also those that may not be used now."""
        return list(self._ring.keys.values())

    def paid_in_flight(self) -> dict[UUID, int]:
        """How many paid calls this process has under way with each key."""
        return {key.id: key.standing.paid.in_flight for key in self._ring.keys.values()}

    def accounts(self) -> frozenset[str]:
        """The accounts that still have a key for new calls."""
        return self._ring.accounts

    def ready_accounts(self) -> set[str]:
        """The accounts with a key that could take a paid call now."""
        awake = (key for key in self._ring.active if not self._rests(key, Use.PAID))
        return {key.account for key in awake if not _candidate(key, Use.PAID).full}

    async def take_paid(self, serves: Callable[[UpstreamKey], bool], without: Sequence[UUID] = ()) -> Lease:
        """A key for a new paid call, as `lease_paid` chooses it, within its cap and its one trial over all processes.

        Keys without a cap, of accounts that are not empty, are leased without asking anybody.
        """
        full: list[UUID] = []
        while True:
            lease = self.lease_paid(serves, without, full)
            try:
                if lease.trial and not await self._take_trial(lease):
                    continue  # by what is known now, the key rests
                if self._caps is None or lease.key.max_in_flight is None:
                    return lease
                lease.place = await self._caps.take(lease.key.id, lease.key.max_in_flight)
                if lease.place is not None:
                    return lease
            except BaseException:
                self.release(lease)
                raise
            full.append(lease.key.id)
            self.release(lease)

    def lease_paid(
        self,
        serves: Callable[[UpstreamKey], bool],
        without: Sequence[UUID] = (),
        full: Sequence[UUID] = (),
    ) -> Lease:
        """A key for a new paid call among those that `serves` accepts, by what this process knows.

        Raises GatewayError 429 when every usable key is cooling down after Pixapi's 429, else 503.
        """
        able = [key for key in self._ring.active if key.id not in without and serves(key)]
        return self._lease(able, Use.PAID, full)

    def lease_read(self, account: str, preferred: UUID | None = None, without: Container[UUID] = ()) -> Lease:
        """A key that can read this account's tasks and models: the preferred one, else a sibling, rather none of
        `without`.

        A disabled, refused or removed key reads nothing; a draining one still does. Raises like `lease_paid`.
        """
        able = self.readers(account)
        others = [key for key in able if key.id not in without and not self._rests(key, Use.READ)]
        able = others or able
        own = [key for key in able if key.id == preferred and not self._rests(key, Use.READ)]
        return self._lease(own or able, Use.READ)

    def readers(self, account: str) -> list[UpstreamKey]:
        """The keys that can read this account's tasks, resting ones too."""
        return [
            key
            for key in self._ring.keys.values()
            if key.account == account and key.state in ("active", "draining")
        ]

    def take_task_read(self, account: str, preferred: UUID, purpose: ReadFor) -> Lease | None:
        """A lease for one read of a task within the reads a second of a key; None when there is none now."""
        now = self._clock.monotonic()
        for key in sorted(self.readers(account), key=lambda key: key.id != preferred):
            if not self._rests(key, Use.READ) and self._budgets.of(key.id).take(now, purpose):
                return self._lease([key], Use.READ)
        return None

    def give_back_task_read(self, lease: Lease) -> None:
        """The read is not made: neither the lease nor the key's share of reads is used."""
        self.release(lease)
        self._budgets.of(lease.key.id).give_back()

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

    def report(self, lease: Lease, outcome: Outcome, model: str = "") -> None:
        """Gives the lease back and notes what the outcome of a call for this model says about the key."""
        key, trial = lease.key, lease.trial
        lease.trial = False
        self.release(lease)
        before = key.standing.health
        if outcome.verdict is Verdict.ANSWERED and before == HEALTHY and not self._failures:
            return  # nothing that an answer could mend
        now = self._clock.monotonic()
        word = Word(lease.use, outcome.verdict, lease.since, now, outcome.retry_after, trial)
        failures = counted(
            self._failures.get(key.id, NO_FAILURES), before, word, outcome.trouble, model or key.label
        )
        failed = outcome.trouble is not None and word.use is Use.PAID
        if failed and failures.too_many and not self._is_last(key, now):
            word, failures = replace(word, broke=True), NO_FAILURES
        if failures == NO_FAILURES:
            self._failures.pop(key.id, None)
        else:
            self._failures[key.id] = failures
        self._note(key, before, word)

    def release(self, lease: Lease) -> None:
        """Gives the lease back without a word about the key; a second time does nothing."""
        if not lease.open:
            return
        lease.open = False
        lease.load.in_flight -= 1
        if lease.place is not None:
            lease.place.release()
        if lease.trial:
            now = self._clock.monotonic()
            word = Word(lease.use, Verdict.NOT_SENT, lease.since, now, trial=True)
            self._note(lease.key, lease.key.standing.health, word)

    def due_checks(self) -> list[UpstreamKey]:
        """The keys whose check by the model list is due, by what this process knows."""
        now = self._clock.monotonic()
        able = (key for key in self._ring.keys.values() if key.state != "disabled")
        due = [key for key in able if (key.standing.health.check_at or now + 1) <= now]
        unwritten = self._notes.newer_than(now)  # Postgres does not know yet
        return [key for key in due if key.id not in unwritten]

    def standing(self) -> list[tuple[UpstreamKey, dict[Use, bool]]]:
        """Every key, and from which use it rests."""
        return [(key, {use: self._rests(key, use) for use in Use}) for key in self._ring.keys.values()]

    async def refresh(self) -> None:
        """Reads keys, states and rests from Postgres; those who ask meanwhile share the next reading."""
        await self._ring.refresh()
        self._budgets.keep(self._ring.keys)
        self._failures = {key: found for key, found in self._failures.items() if key in self._ring.keys}

    async def close(self) -> None:
        """Waits for rests that are being written down."""
        await self._notes.close()

    def _awake_readers(self) -> list[UpstreamKey]:
        able = (key for key in self._ring.keys.values() if key.state in ("active", "draining"))
        return [key for key in able if not self._rests(key, Use.READ)]

    def _lease(self, keys: list[UpstreamKey], use: Use, full: Sequence[UUID] = ()) -> Lease:
        if not keys:
            raise no_key()
        now = self._clock.monotonic()
        awake = [key for key in keys if not key.standing.health.rests(use, now)]
        awake = awake or self._last_ones(keys, use, now)
        if not awake:
            raise all_rest([key.standing.health for key in keys], use, now)
        chosen = choose([_candidate(key, use) for key in awake if key.id not in full], self._random)
        if chosen is None:
            raise all_full()
        key, standing = chosen.key, chosen.key.standing
        load = standing.load(use)
        load.in_flight += 1
        trial = use is Use.PAID and standing.health.half_open(now)
        return Lease(key, use, now, load, trial)

    def _last_ones(self, keys: list[UpstreamKey], use: Use, now: float) -> list[UpstreamKey]:
        """Keys that merely fail, when all others are off: the last key stays in use, however it fails."""
        if use is Use.READ or any(is_relied_on(key.standing.health, now) for key in keys):
            return []
        return [key for key in keys if key.standing.health.reason == FAILING]

    def _is_last(self, key: UpstreamKey, now: float) -> bool:
        others = (one for one in self._ring.active if one.id != key.id)
        return not any(is_relied_on(one.standing.health, now) for one in others)

    async def _take_trial(self, lease: Lease) -> bool:
        """Whether this call may be the one that tries the empty account; else its lease is given back."""
        # Nobody else here is to ask meanwhile.
        self._try_until(lease.key, self._clock.monotonic() + TRIAL_ELSEWHERE_SECONDS)
        taken = False
        try:
            async with self._database.autocommit() as connection:
                taken = await rests.take_trial(connection, lease.key.id)
        except GatewayError as error:
            log.warning("an empty account is tried later", extra={"reason": error.reason})
        if taken:
            self._try_until(lease.key, self._clock.monotonic() + rests.TRIAL_SECONDS)
        else:
            lease.trial = False
            self.release(lease)
        return taken

    def _try_until(self, key: UpstreamKey, until: float) -> None:
        key.standing.health = replace(key.standing.health, trial_until=until)

    def _note(self, key: UpstreamKey, before: Health, word: Word) -> None:
        health = after(before, word)
        if health is before:
            return
        key.standing.health = health
        if health.rests(word.use, word.at) and not before.rests(word.use, word.at):
            log.warning(
                "upstream key rests",
                extra={"upstream_key": key.label, "reason": health.reason, "use": word.use.value},
            )
        self._notes.add(key.id, word)

    def _rests(self, key: UpstreamKey, use: Use) -> bool:
        return key.standing.health.rests(use, self._clock.monotonic())


def _candidate(key: UpstreamKey, use: Use) -> Candidate[UpstreamKey]:
    cap = key.max_in_flight if use is Use.PAID else None
    return Candidate(key, key.standing.load(use).in_flight, key.weight, cap)
