"""Group commit: callers that come while a statement is under way go together in the next one.

Leader and followers, without a timer: the first caller is sent at once, whoever comes meanwhile waits for the next
batch. Items carry ids made by this process, so a batch whose answer was lost is sent again as it is. A batch that
cannot be sent for its content is sent in halves, so that one poisoned item fails alone. Two items with one id never
share a batch: the second is sent when the first is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
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
    """`send` takes a list of items and answers a list of results in the same order; `ident` is an item's id.

    Items of one `lane` (a team) may wait for one lock. When a batch waited for a lock in vain, its lanes are sent
    apart, so that only the one that is locked fails; for a while it has a queue of its own, and delays nobody.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
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
        future.add_done_callback(_retrieve)
        queue = self._queue(self._lane(item))
        queue.waiting.append((item, future))
        if queue.leader is None:
            queue.leader = asyncio.create_task(self._lead(queue))
        return future

    async def submit(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled leaves its item in: what it does still happens."""
        return await asyncio.shield(self.put(item))

    def _queue(self, lane: Hashable) -> _Queue[Item, Result]:
        queue = self._apart.get(lane)
        if queue is None:
            return self._common
        if queue.leader is None and asyncio.get_running_loop().time() >= queue.until:
            del self._apart[lane]
            return self._common
        return queue

    async def _lead(self, queue: _Queue[Item, Result]) -> None:
        try:
            while queue.waiting:
                batch = self._next(queue)
                self.largest_seen = max(self.largest_seen, len(batch))
                await self._deliver(batch)
        finally:
            queue.leader = None
            for _, future in queue.waiting:
                future.cancel()
            queue.waiting = []

    def _next(self, queue: _Queue[Item, Result]) -> list[Waiting[Item, Result]]:
        batch: list[Waiting[Item, Result]] = []
        later: list[Waiting[Item, Result]] = []
        idents: set[Hashable] = set()
        for number, one in enumerate(queue.waiting):
            if len(batch) == LARGEST:
                later += queue.waiting[number:]
                break
            ident = self._ident(one[0])
            (later if ident in idents else batch).append(one)
            idents.add(ident)
        queue.waiting = later
        return batch

    async def _deliver(self, batch: Sequence[Waiting[Item, Result]]) -> None:
        try:
            results = await self._repeated([item for item, _ in batch])
        except LockedError as error:
            await self._deliver_apart(batch, error)
        except GatewayError as error:
            _fail(batch, error)
        except Exception as error:
            if len(batch) == 1:
                log.exception("an item of the ledger cannot be written")
                _fail(batch, error)
                return
            half = len(batch) // 2
            await self._deliver(batch[:half])
            await self._deliver(batch[half:])
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _deliver_apart(self, batch: Sequence[Waiting[Item, Result]], error: LockedError) -> None:
        lanes: dict[Hashable, list[Waiting[Item, Result]]] = {}
        for one in batch:
            lanes.setdefault(self._lane(one[0]), []).append(one)
        if len(lanes) > 1:
            await asyncio.gather(*(self._deliver(lane) for lane in lanes.values()))
            return
        (lane,) = lanes
        if lane is not None:
            queue = self._apart.setdefault(lane, _Queue())
            queue.until = asyncio.get_running_loop().time() + APART_SECONDS
        _fail(batch, error)

    async def _repeated(self, items: Sequence[Item]) -> Sequence[Result]:
        """Sends a batch, once more when the answer was lost: the ids make the second time harmless."""
        try:
            return await self._send(items)
        except LockedError:
            raise
        except GatewayError:
            return await self._send(items)


@dataclass(slots=True)
class _Queue(Generic[Item, Result]):
    """Those who wait, and the one who sends for them; a queue of one lane serves it at least `until`."""

    waiting: list[Waiting[Item, Result]] = field(default_factory=list)
    leader: asyncio.Task[None] | None = None
    until: float = 0.0


def _fail(batch: Sequence[tuple[object, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _retrieve(future: asyncio.Future[Result]) -> None:
    """The caller may have left: that is no reason for a warning."""
    if not future.cancelled():
        future.exception()
