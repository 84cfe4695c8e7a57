"""Which models each Pixapi account lists: read through one of its keys, fresh for minutes, stale for a day.

The union is what `/v1/models` narrows to its caller, and a paid call goes only to keys of an account that lists its
model. Each account's list is read by one task for all who wait; while Pixapi cannot be asked the old list serves, and
nobody waits for one account's list while another's is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gateway import errors
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool, no_key

log = logging.getLogger("gateway.catalog")

LARGEST_BODY = 8 * 1024 * 1024
# After a failed read nobody asks again for this long.
RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AccountModels:
    """One account's list: Pixapi's entries by model id, and when they were read (monotonic)."""

    entries: dict[str, dict[str, Any]]
    read_at: float


@dataclass(frozen=True, slots=True)
class Union:
    """The models of the accounts whose lists are known; `read_at` is the oldest list's.

    `cache` says what was served: `hit` fresh lists, `stale` an old one among them, `miss` what was waited for.
    """

    entries: dict[str, dict[str, Any]]
    read_at: float
    cache: Literal["hit", "miss", "stale"]


class ModelList:
    """`fresh` and `stale` in seconds: how long a list serves, and how long when Pixapi cannot be asked."""

    def __init__(
        self, pool: Pool, dispatcher: Dispatcher, clock: Clock, fresh: float = 300.0, stale: float = 86_400.0
    ) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._clock = clock
        self._fresh = fresh
        self._stale = stale
        self._lists: dict[str, AccountModels] = {}
        self._failed_at: dict[str, tuple[float, GatewayError]] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

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
        return not accounts or any(self.lists(account, model) for account in accounts)

    async def union(self, request_id: str) -> Union:
        """All accounts' models. Waits only while no list at all is known; raises GatewayError when none can be read."""
        accounts = self._pool.accounts()
        if not accounts:
            raise no_key()
        known = self._known(accounts)
        waited = not known
        if waited:
            await self._refresh(accounts, request_id)
            known = self._known(accounts)
        else:
            for account in accounts:
                if self._due(account):
                    self._start(account, request_id)  # whoever asks next gets the new list
        if not known:
            failures = [self._failed_at[account][1] for account in accounts if account in self._failed_at]
            raise failures[0] if failures else no_key()
        entries: dict[str, dict[str, Any]] = {}
        for models in known:
            for model, entry in models.entries.items():
                entries.setdefault(model, entry)
        oldest = min(one.read_at for one in known)
        late = self._clock.monotonic() - oldest >= self._fresh
        return Union(entries, oldest, "miss" if waited else "stale" if late else "hit")

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

    def _due(self, account: str) -> bool:
        known = self._lists.get(account)
        return known is None or self._clock.monotonic() - known.read_at >= self._fresh

    async def _refresh(self, accounts: Iterable[str], request_id: str) -> None:
        tasks = [task for account in accounts if (task := self._start(account, request_id)) is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, account: str, request_id: str) -> asyncio.Task[None] | None:
        """The read under way or a new one; None while a failed one is recent."""
        failed = self._failed_at.get(account)
        if failed is not None and self._clock.monotonic() - failed[0] < RETRY_SECONDS:
            return None
        task = self._under_way.get(account)
        if task is None:
            task = asyncio.create_task(self._read(account, request_id))
            self._under_way[account] = task
            task.add_done_callback(lambda _: self._under_way.pop(account, None))
        return task

    async def _read(self, account: str, request_id: str) -> None:
        try:
            entries = await self._ask(account, request_id)
        except GatewayError as error:
            log.warning("model list not read", extra={"account": account, "reason": error.reason})
            self._failed_at[account] = (self._clock.monotonic(), error)
            return
        self._failed_at.pop(account, None)
        self._lists[account] = AccountModels(entries, self._clock.monotonic())

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
