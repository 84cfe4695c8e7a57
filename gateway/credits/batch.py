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
from typing import Generic, TypeVar

from gateway.errors import GatewayError

log = logging.getLogger("gateway.ledger")

LARGEST = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """`send` takes a list of items and answers a list of results in the same order; `ident` is an item's id."""

    def __init__(
        self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], ident: Callable[[Item], Hashable]
    ) -> None:
        self._send = send
        self._ident = ident
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._leader: asyncio.Task[None] | None = None
        self.largest_seen = 0

    def put(self, item: Item) -> asyncio.Future[Result]:
        """The item is in, and cannot be taken out: whoever awaits its result shields the future."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        self._waiting.append((item, future))
        if self._leader is None:
            self._leader = asyncio.create_task(self._lead())
        return future

    async def submit(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled leaves its item in: what it does still happens."""
        return await asyncio.shield(self.put(item))

    async def _lead(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                self.largest_seen = max(self.largest_seen, len(batch))
                await self._deliver(batch)
        finally:
            self._leader = None
            for _, future in self._waiting:
                future.cancel()
            self._waiting = []

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        later: list[tuple[Item, asyncio.Future[Result]]] = []
        idents: set[Hashable] = set()
        for number, one in enumerate(self._waiting):
            if len(batch) == LARGEST:
                later += self._waiting[number:]
                break
            ident = self._ident(one[0])
            (later if ident in idents else batch).append(one)
            idents.add(ident)
        self._waiting = later
        return batch

    async def _deliver(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._repeated([item for item, _ in batch])
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

    async def _repeated(self, items: Sequence[Item]) -> Sequence[Result]:
        """Sends a batch, once more when the answer was lost: the ids make the second time harmless."""
        try:
            return await self._send(items)
        except GatewayError:
            return await self._send(items)


def _fail(batch: Sequence[tuple[object, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _retrieve(future: asyncio.Future[Result]) -> None:
    """The caller may have left: that is no reason for a warning."""
    if not future.cancelled():
        future.exception()
