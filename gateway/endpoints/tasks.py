"""GET /v1/tasks/{id}: the owner's task, nobody else's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.clock import Clock
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply
from gateway.tasks.reader import TaskReader

TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tasks:
    """`interval` in seconds is what a client is told to wait before it asks again for an unfinished task."""

    reader: TaskReader
    clock: Clock
    interval: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        task_id = scope["path_params"]["id"]
        if exchange.principal is None:
            raise errors.internal_error()
        if not TASK_ID.fullmatch(task_id):
            raise errors.task_not_found()
        exchange.task_id = task_id
        reading = await self.reader.read(exchange.principal.team_id, task_id, exchange.request_id)
        exchange.cache = reading.cache
        age = max(0, int(self.clock.monotonic() - reading.read_at))
        headers = [
            (b"content-type", b"application/json"),
            (b"x-cache", reading.cache.encode()),
            (b"age", b"%d" % age),
        ]
        if not reading.ended:
            headers.append((b"retry-after", b"%d" % max(1, round(self.interval))))
        await reply(send, 200, headers, reading.body)
