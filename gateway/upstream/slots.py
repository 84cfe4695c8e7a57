"""How many calls may be under way at once. Nearly always there is room, and then nothing is awaited."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from gateway.upstream.deadline import Deadline


class Slots:
    """`count` slots. One that is given back goes to whoever has waited longest, so nobody who comes later is first."""

    def __init__(self, count: int) -> None:
        self._free = count  # 0 while somebody waits
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def take(self) -> bool:
        """Takes a slot if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self, seconds: float) -> None:
        """Takes the next slot that is given back; TimeoutError when that takes too long."""
        slot = asyncio.get_running_loop().create_future()
        self._waiting[slot] = None
        try:
            with Deadline(seconds):
                await slot
        except BaseException:
            if slot.cancelled():
                self._waiting.pop(slot, None)
            else:  # it came as its taker left
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            slot, _ = self._waiting.popitem(last=False)
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1
