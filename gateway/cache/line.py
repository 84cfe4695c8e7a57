"""Commands under way on one connection: each reply goes to the command that asked for it, by order alone.

A command stays in its place when its caller has left or given up, so that its reply is read and thrown away and no
reply can slide to another caller. A line on which a command got no answer in time takes no new commands: it lives on
for those that still wait on it, and is closed when none does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from gateway.cache.address import Address
from gateway.cache.wire import ReplyError, Wire

Reply = asyncio.Future[Any]


class CacheGone(Exception):  # noqa: N818 - a state of Redis that everyone who asks it meets, not a defect
    """Redis did not answer in time, refused, or is left alone now."""


class Asked:
    """Commands asked together, mostly one: packed, how many replies are missing, until when (the
    loop's time) these count, and the future of the last one, or of the first that is an error."""

    __slots__ = ("deadline", "judged", "missing", "packed", "refused", "reply")

    def __init__(self, packed: bytes, reply: Reply, deadline: float, replies: int = 1) -> None:
        self.packed = packed
        self.reply = reply
        self.deadline = deadline
        self.missing = replies
        self.refused: Any = None
        self.judged = False  # has been failed: whatever still comes is too late

    def fail(self, error: Exception) -> None:
        """The reply is not coming; a caller that has left is no reason for a warning."""
        self.judged = True
        if not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()


class Line:
    """`answered` is called with every reply that came in time, `lost` once when the connection broke."""

    def __init__(self, answered: Callable[[Line, Any], None], lost: Callable[[Line], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._wire: Wire | None = None
        self._unanswered: deque[Asked] = deque()
        self._retired = False

    async def open(self, address: Address, timeout: float) -> None:
        """Connects; raises OSError when that fails or takes longer than `timeout` seconds."""
        self._wire = await address.connect(self._heard, self._broke, timeout)

    def send(self, batch: Iterable[Asked]) -> None:
        """Sends commands in one write. One whose caller has left before is not sent at all."""
        wanted = [asked for asked in batch if not asked.reply.done()]
        if wanted and self._wire is not None:
            self._unanswered.extend(wanted)
            self._wire.send(b"".join([asked.packed for asked in wanted]))

    @property
    def next_deadline(self) -> float | None:
        """When the oldest command that still counts has to be answered."""
        return next((asked.deadline for asked in self._unanswered if not asked.judged), None)

    def overdue(self, now: float) -> list[Asked]:
        """The commands whose time is over, oldest first."""
        found = []
        for asked in self._unanswered:
            if asked.deadline > now:
                break
            if not asked.judged:
                found.append(asked)
        return found

    def retire(self) -> None:
        """No new commands: closes now, or when the last one that waits is answered or judged."""
        self._retired = True
        self.close_if_done()

    def close_if_done(self) -> bool:
        """Closes a retired line nobody waits on any more; whether it is closed."""
        if self._retired and self.next_deadline is None:
            self.close()
        return self._wire is None

    def close(self) -> list[Asked]:
        """Closes at once; returns the commands that will get no answer by it."""
        left = [asked for asked in self._unanswered if not asked.judged]
        self._unanswered.clear()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        return left

    def _heard(self, reply: Any) -> None:
        if not self._unanswered:  # an answer nobody asked for: from here on nothing on it could be trusted
            self._broke()
            return
        asked = self._unanswered[0]
        asked.missing -= 1
        if asked.refused is None and type(reply) is ReplyError:
            asked.refused = reply
        if asked.missing:
            return
        self._unanswered.popleft()
        if not asked.judged:
            reply = reply if asked.refused is None else asked.refused
            if not asked.reply.done():
                asked.reply.set_result(reply)
            self._answered(self, reply)
        if self._retired:
            self.close_if_done()

    def _broke(self) -> None:
        self._lost(self)
