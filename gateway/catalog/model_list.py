"""Which models each Pixapi account lists: read through one of its keys, fresh for minutes, stale for a day.

The union is what `/v1/models` narrows to its caller, and a paid call goes only to keys of an account that lists its
model. Each account's list is read by one task for all who wait, and by one process for all; while Pixapi cannot be
asked the old list serves, and nobody waits for one account's list while another's is there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gateway import errors
from gateway.catalog.model_entries import ModelEntries
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool, no_key

log = logging.getLogger("gateway.catalog")

LARGEST_BODY = 8 * 1024 * 1024
# After a failed read nobody asks again for this long.
RETRY_SECONDS = 5.0
ANEW_SECONDS = 2.0  # how young a list is new enough even for who wants a new one
OTHERS_SECONDS = 5.0  # for what another process is reading; then this one reads
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class AccountModels:
    """One account's list: Pixapi's entries by model id, and when they were read (monotonic); the same `version`, the
    same entries."""

    entries: dict[str, dict[str, Any]]
    read_at: float
    version: int


@dataclass(frozen=True, slots=True)
class Union:
    """The models of the accounts whose lists are known; `read_at` is the oldest list's.

    `cache` says what was served: `hit` fresh lists, `stale` an old one among them; `miss` what was waited for,
    `coalesced` when another caller had it read. Unions of the same `version` have the same entries.
    """

    entries: dict[str, dict[str, Any]]
    read_at: float
    cache: Literal["hit", "miss", "coalesced", "stale"]
    version: tuple[int, ...]


class ModelList:
    """`fresh` and `stale` in seconds: how long a list serves, and how long when Pixapi cannot be asked."""

    def __init__(
        self,
        pool: Pool,
        dispatcher: Dispatcher,
        shared: ModelEntries,
        clock: Clock,
        *,
        fresh: float = 300.0,
        stale: float = 86_400.0,
    ) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._shared = shared
        self._clock = clock
        self._fresh = fresh
        self._stale = stale
        self._lists: dict[str, AccountModels] = {}
        self._failed_at: dict[str, tuple[float, GatewayError]] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._versions = itertools.count()

    def lists(self, account: str, model: str) -> bool:
        """Whether a call for this model may go to this account.

        One that could not be asked yet is given the benefit of the doubt, unless another is known to list the model
        and has a key ready for it.
        """
        known = self._usable(account)
        if known is not None:
            return model in known.entries
        others = (self._usable(other) for other in self._pool.ready_accounts())
        return not any(other is not None and model in other.entries for other in others)

    def anyone_lists(self, model: str) -> bool:
        """Whether any account with a key for new calls lists the model (or could not be asked yet)."""
        accounts = self._pool.accounts()
        for account in accounts:
            if self.lists(account, model):
                return True
        return not accounts

    def fresh_union(self) -> Union | None:
        """All accounts' models when every list is known and fresh."""
        accounts = self._pool.accounts()
        if not accounts or any(self._due(account) for account in accounts):
            return None
        return self._union(self._known(accounts), "hit")

    async def union(self, request_id: str, *, anew: bool = False) -> Union:
        """All accounts' models. Waits only while no list at all is known, or for lists `anew` that are not brand new;
        raises GatewayError when none can be read."""
        accounts = self._pool.accounts()
        if not accounts:
            raise no_key()
        wanted = [account for account in accounts if self._due(account, ANEW_SECONDS if anew else None)]
        known = self._known(accounts)
        waited: Literal["miss", "coalesced"] | None = None
        if wanted and (anew or not known):
            waited = "coalesced" if any(account in self._under_way for account in wanted) else "miss"
            await self._refresh(wanted, request_id, anew=anew)
            known = self._known(accounts)
        else:
            for account in wanted:
                self._start(account, request_id)  # whoever asks next gets the new list
        if not known:
            failures = [self._failed_at[account][1] for account in accounts if account in self._failed_at]
            raise failures[0] if failures else no_key()
        return self._union(known, waited or "hit")

    def _union(self, known: Sequence[AccountModels], cache: Literal["hit", "miss", "coalesced"]) -> Union:
        entries: dict[str, dict[str, Any]] = {}
        for models in known:
            for model, entry in models.entries.items():
                entries.setdefault(model, entry)
        oldest = min(one.read_at for one in known)
        late = self._clock.monotonic() - oldest >= self._fresh
        return Union(entries, oldest, "stale" if late else cache, tuple(one.version for one in known))

    async def warm(self) -> None:
        """Reads what is missing or due, for whoever asks next; failures are logged and tried again later."""
        due = [account for account in self._pool.accounts() if self._due(account)]
        await self._refresh(due, f"req_{uuid7().hex}")

    async def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()

    def _usable(self, account: str) -> AccountModels | None:
        known = self._lists.get(account)
        if known is None or self._clock.monotonic() - known.read_at >= self._stale:
            return None
        return known

    def _known(self, accounts: Iterable[str]) -> list[AccountModels]:
        return [one for account in sorted(accounts) if (one := self._usable(account)) is not None]

    def _due(self, account: str, seconds: float | None = None) -> bool:
        known = self._lists.get(account)
        oldest = self._fresh if seconds is None else min(self._fresh, seconds)
        return known is None or self._clock.monotonic() - known.read_at >= oldest

    async def _refresh(self, accounts: Iterable[str], request_id: str, *, anew: bool = False) -> None:
        started = [self._start(account, request_id, anew=anew) for account in accounts]
        tasks = [task for task in started if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, account: str, request_id: str, *, anew: bool = False) -> asyncio.Task[None] | None:
        """The read under way or a new one; None while a failed one is recent."""
        failed = self._failed_at.get(account)
        if failed is not None and self._clock.monotonic() - failed[0] < RETRY_SECONDS:
            return None
        task = self._under_way.get(account)
        if task is None:
            task = asyncio.create_task(self._read(account, request_id, anew=anew))
            self._under_way[account] = task
            task.add_done_callback(lambda _: self._under_way.pop(account, None))
        return task

    async def _read(self, account: str, request_id: str, *, anew: bool) -> None:
        ident = self._ident(account)
        try:
            if not await self._take_shared(account, ident, anew=anew):
                entries = await self._ask(account, request_id)
                self._take_over(account, entries, 0.0)
                self._shared.put(account, ident, entries)
        except GatewayError as error:
            log.warning("model list not read", extra={"account": account, "reason": error.reason})
            self._failed_at[account] = (self._clock.monotonic(), error)
        finally:
            self._shared.give_back(ident)

    async def _take_shared(self, account: str, ident: str, *, anew: bool) -> bool:
        """Takes over what another process has read, or is reading now; false when this one is to read."""
        until = self._clock.monotonic() + OTHERS_SECONDS
        newest = min(self._fresh, ANEW_SECONDS) if anew else self._fresh
        while True:
            found = await self._shared.find(account, ident)
            if found is not None and found.age < newest:
                self._take_over(account, found.entries, found.age)
                return True
            if self._clock.monotonic() >= until or await self._shared.take_lease(ident):
                return False
            await asyncio.sleep(LOOK_SECONDS)

    def _take_over(self, account: str, entries: dict[str, dict[str, Any]], age: float) -> None:
        known = self._lists.get(account)
        same = known is not None and known.entries == entries
        version = known.version if known is not None and same else next(self._versions)
        self._failed_at.pop(account, None)
        self._lists[account] = AccountModels(entries, self._clock.monotonic() - age, version)

    def _ident(self, account: str) -> str:
        """What the account's shared list is named after: the oldest key that can read it."""
        return min((key.id.hex for key in self._pool.readers(account)), default=account)

    async def _ask(self, account: str, request_id: str) -> dict[str, dict[str, Any]]:
        reply = await self._dispatcher.read("/v1/models", account, request_id, sends=2)
        try:
            large = reply.body.size > LARGEST_BODY
            body = b"" if large else b"".join([chunk async for chunk in reply.body.chunks()])
        finally:
            reply.body.close()
        entries = read_list(body)
        if entries is None:
            raise errors.upstream_error("Pixapi's model list is not one.")
        return entries


def read_list(body: bytes) -> dict[str, dict[str, Any]] | None:
    """The entries of a model list by id; None when the body is not one."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        return None
    return {
        entry["id"]: entry
        for entry in data
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    }
