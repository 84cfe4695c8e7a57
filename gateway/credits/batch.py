"""Group commit: callers that come while a statement is under way go together in the next one.

Leader and followers, without a timer: the first caller is sent at once, whoever comes meanwhile waits for the next
batch. Items carry ids made by this process, so a batch whose answer was lost is sent again as it is. A batch that
cannot be sent for its content is sent in halves, so that one poisoned item fails alone. Two items with one id never
share a batch: the second is sent when the first is done.

A batch of many teams waits for a lock only shortly. What waited in vain goes on team by team, each in a queue of its
own, so that a locked team alone waits, and no longer than `database.lock_timeout` in all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.db.engine import LockedError
from gateway.errors import GatewayError

log = logging.getLogger("gateway.ledger")

LARGEST = 64
APART_SECONDS = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Waiting = tuple[Item, asyncio.Future[Result]]


class Batcher(Generic[Item, Result]):
    """`send(items, patient)` answers a list of results in the same order, and waits for locks in full when patient;
    `ident` is an item's id; items of one `lane` (a team) may wait for one lock.

    A lane that was locked keeps a queue of its own for a while. Raises LockedError to all who wait in it.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item], bool], Awaitable[Sequence[Result]]],
        ident: Callable[[Item], Hashable],
        lane: Callable[[Item], Hashable] = lambda _: None,
    ) -> None:
        self._send = send
        self._ident = ident
        self._lane = lane
        self._common: _Queue[Item, Result] = _Queue()
        self._apart: dict[Hashable, _Queue[Item, Result]] = {}
        self.largest_seen = 0

    def put(self, item: Item) -> asyncio.Future[Result]:
        """The item is in, and cannot be taken out: whoever awaits its result shields the future."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue = self._apart.get(self._lane(item), self._common) if self._apart else self._common
        self._enqueue(queue, (item, future))
        return future

    async def submit(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled leaves its item in: what it does still happens."""
        return await asyncio.shield(self.put(item))

    def _enqueue(self, queue: _Queue[Item, Result], one: Waiting[Item, Result]) -> None:
        queue.waiting.append(one)
        if queue.leader is None:
            queue.leader = asyncio.create_task(self._lead(queue))

    async def _lead(self, queue: _Queue[Item, Result]) -> None:
        try:
            while queue.waiting:
                batch = self._next(queue)
                self.largest_seen = max(self.largest_seen, len(batch))
                await self._deliver(batch, queue)
        finally:
            queue.leader = None
            for _, future in queue.waiting:
                future.cancel()
            queue.waiting = []
            if queue is not self._common:
                self._rejoin(queue)

    def _rejoin(self, queue: _Queue[Item, Result]) -> None:
        """A lane in which nobody waits, and that was not locked for a while, goes with the others again."""
        if queue.leader is None and not queue.locked:
            del self._apart[queue.lane]

    def _forgive(self, queue: _Queue[Item, Result]) -> None:
        queue.locked -= 1
        self._rejoin(queue)

    def _next(self, queue: _Queue[Item, Result]) -> list[Waiting[Item, Result]]:
        batch, later = queue.waiting[:LARGEST], queue.waiting[LARGEST:]
        if len({self._ident(item) for item, _ in batch}) < len(batch):
            batch, again = self._without_repeats(batch)
            later = again + later
        queue.waiting = later
        return batch

    def _without_repeats(
        self, waiting: Sequence[Waiting[Item, Result]]
    ) -> tuple[list[Waiting[Item, Result]], list[Waiting[Item, Result]]]:
        """The first of each id, and the others."""
        first: list[Waiting[Item, Result]] = []
        again: list[Waiting[Item, Result]] = []
        idents: set[Hashable] = set()
        for one in waiting:
            ident = self._ident(one[0])
            (again if ident in idents else first).append(one)
            idents.add(ident)
        return first, again

    async def _deliver(self, batch: Sequence[Waiting[Item, Result]], queue: _Queue[Item, Result]) -> None:
        patient = queue is not self._common
        try:
            results = await self._repeated([item for item, _ in batch], patient)
        except LockedError as error:
            if patient:
                self._locked(batch, queue, error)
            else:
                for one in batch:
                    lane = self._lane(one[0])
                    self._enqueue(self._apart.setdefault(lane, _Queue(lane)), one)
        except GatewayError as error:
            _fail(batch, error)
        except Exception as error:
            if len(batch) == 1:
                log.exception("an item of the ledger cannot be written")
                _fail(batch, error)
                return
            half = len(batch) // 2
            await self._deliver(batch[:half], queue)
            await self._deliver(batch[half:], queue)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _locked(
        self, batch: Sequence[Waiting[Item, Result]], queue: _Queue[Item, Result], error: LockedError
    ) -> None:
        """Whoever came meanwhile fails too: to wait for the same lock once more would take them twice as long."""
        if queue.lane is not None:  # those that name no lane have none to keep
            queue.locked += 1
            asyncio.get_running_loop().call_later(APART_SECONDS, self._forgive, queue, context=Context())
        waiting, queue.waiting = queue.waiting, []
        _fail([*batch, *waiting], error)

    async def _repeated(self, items: Sequence[Item], patient: bool) -> Sequence[Result]:
        """Sends a batch, once more when the answer was lost: the ids make the second time harmless."""
        try:
            return await self._send(items, patient)
        except LockedError:
            raise
        except GatewayError:
            return await self._send(items, patient)


@dataclass(slots=True)
class _Queue(Generic[Item, Result]):
    """Those who wait, and the one who sends for them; how often their lane was `locked` of late."""

    lane: Hashable = None
    waiting: list[Waiting[Item, Result]] = field(default_factory=list)
    leader: asyncio.Task[None] | None = None
    locked: int = 0


def _fail(batch: Sequence[tuple[object, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
            future.exception()  # its caller may have left: that is no reason for a warning
