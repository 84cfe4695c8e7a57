"""Answers repeats of paid calls with what the first call answered, before anything is limited, held or sent.

A repeat is told by its Idempotency-Key, or without one by an SDK's own count of its retries.
"""

from __future__ import annotations

import re
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.credits.ledger import RepeatedError
from gateway.credits.terms import Repeatable
from gateway.proxy.arrival import when_arrived
from gateway.proxy.exchange import Exchange, exchange_of
from gateway.proxy.leaving import unless_left
from gateway.repeats.records import Record
from gateway.repeats.repeats import Repeats
from gateway.upstream.headers import toward_client

_KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_COUNT = re.compile(rb"[0-9]{1,4}")
_REPLAYED = {"idempotent-replayed": "true"}


class RepeatsMiddleware:
    """Sits behind the request body: what is repeated is known by it."""

    def __init__(self, app: ASGIApp, *, repeats: Repeats) -> None:
        self._app = app
        self._repeats = repeats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        principal, body = exchange.principal, exchange.body
        if principal is None or body is None:
            raise errors.internal_error()
        number = retry_count(exchange)
        repeatable = self._repeats.repeatable(idempotency_key(exchange), body.fingerprint, number)
        exchange.repeatable = repeatable
        for may_be_new in (True, True, False):  # twice, since what it would join may just have gone
            record = await self._repeats.find(principal.team_id, principal.key_id, repeatable, number)
            if record is not None or not may_be_new:
                break
            try:
                await self._app(scope, receive, send)
            except RepeatedError:
                if repeatable is None or repeatable.joinable is None:
                    raise
            else:
                return
        if record is None or repeatable is None:
            raise errors.repeat_in_progress()
        body.raw.close()
        if exchange.seat is not None:
            exchange.seat.close()  # what waits for another call needs none
        exchange.repeated = str(record.hold_id)
        if await unless_left(receive, self._replay(record, send)):
            when_arrived(scope, partial(self._replayed, record, repeatable))

    def _replayed(self, record: Record, repeatable: Repeatable, arrived: bool) -> None:
        if arrived:
            self._repeats.replayed(record, repeatable)

    async def _replay(self, record: Record, send: Send) -> bool:
        async with self._repeats.answer(record) as answer:
            if answer.error is not None:
                # One of a call that was not executed is as it was: sending it again is right.
                raise answer.error.once_more(_REPLAYED) if answer.executed else answer.error
            if answer.body is None:
                raise errors.internal_error()
            headers = [
                *toward_client(answer.content_type, answer.body.size),
                (b"idempotent-replayed", b"true"),
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for chunk in answer.body.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        return True


def idempotency_key(exchange: Exchange) -> str | None:
    """The request's Idempotency-Key; raises 400 for one that is empty, too long, not plain text, or there twice."""
    values = exchange.header_values(b"idempotency-key")
    if not values:
        return None
    if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
        raise errors.bad_request(
            "Send one Idempotency-Key of 1 to 255 printable ASCII characters, such as a UUID.",
            "invalid_idempotency_key",
        )
    return values[0].decode("ascii")


def retry_count(exchange: Exchange) -> int:
    """Which retry of an SDK this is; 0 for a first try, and for anything that is not such a count."""
    values = exchange.header_values(b"x-stainless-retry-count")
    if len(values) != 1 or _COUNT.fullmatch(values[0]) is None:
        return 0
    return int(values[0])
