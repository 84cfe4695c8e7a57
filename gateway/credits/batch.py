"""Group commit: callers that come while a statement is under way go together in the next one.

Leader and followers, without a timer: the first caller is sent at once, whoever comes meanwhile waits for the next
batch. Items carry ids made by this process, so a batch whose answer was lost is sent again as it is. A batch that
Postgres refuses for its content is sent item by item, so that one poisoned item fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gateway.db.engine import StatementRefusedError
from gateway.errors import GatewayError

LARGEST = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """`send` takes a list of items and answers a list of results in the same order."""

    def __init__(self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._leader: asyncio.Task[None] | None = None
        self.largest_seen = 0

    async def submit(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled leaves its item in: what it does still happens."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        self._waiting.append((item, future))
        if self._leader is None:
            self._leader = asyncio.create_task(self._lead())
        return await asyncio.shield(future)

    async def idle(self) -> None:
        """Waits until nothing is under way."""
        while self._leader is not None:
            await asyncio.wait({self._leader})

    async def _lead(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
                self.largest_seen = max(self.largest_seen, len(batch))
                await self._deliver(batch)
        finally:
            self._leader = None
            for _, future in self._waiting:
                future.cancel()
            self._waiting = []

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._repeated([item for item, _ in batch])
        except StatementRefusedError as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:
                await self._deliver([one])
        except GatewayError as error:
            _fail(batch, error)
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
