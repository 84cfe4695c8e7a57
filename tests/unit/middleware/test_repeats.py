"""A call that joins another only when its hold is to be placed: its answer is found, or it is tried once more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from starlette.types import Receive, Scope, Send

from gateway.credits.ledger import RepeatedError
from gateway.credits.terms import Repeatable
from gateway.errors import GatewayError
from gateway.middleware.repeats import RepeatsMiddleware
from gateway.proxy.exchange import RequestBody
from gateway.proxy.generation import Generation
from gateway.proxy.paid_calls import PaidCalls
from gateway.repeats.answer import Answer, Bytes
from gateway.repeats.records import Record
from gateway.repeats.repeats import Repeats
from gateway.spool import SpoolBudget
from tests.fakes.asgi import Header, Sent, call, http, ok, with_exchange
from tests.fakes.principals import principal

KEY: Header = (b"idempotency-key", b"one")
FOUND = Record(
    hold_id=UUID(int=1),
    fingerprint=b"f",
    state="running",
    hold="held",
    model="m",
    task_id=None,
    status=None,
    headers=None,
    body=None,
    path=None,
    ended_ago=0.0,
)


class Finding:
    """Repeats that finds these records, one a time."""

    def __init__(self, found: Sequence[Record | None]) -> None:
        self._found = list(found)
        self.delivered = 0

    def repeatable(self, idempotency_key: str | None, fingerprint: bytes, number: int = 0) -> Repeatable:
        joinable = None if idempotency_key else 600.0
        return Repeatable(
            idempotency_key=idempotency_key, fingerprint=fingerprint, lives=1, joinable=joinable
        )

    async def find(self, *_: Any) -> Record | None:
        return self._found.pop(0)

    @asynccontextmanager
    async def answer(self, record: Record) -> AsyncIterator[Answer]:
        assert record is FOUND
        yield Answer(200, body=Bytes(b'{"joined": true}'))

    def replayed(self, *_: Any) -> None:
        self.delivered += 1

    @property
    def left(self) -> int:
        return len(self._found)


class Placing:
    """What is behind: the first `refused` calls are told that they repeat one."""

    def __init__(self, refused: int) -> None:
        self._refused = refused
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if self.calls <= self._refused:
            raise RepeatedError
        await ok(scope, receive, send)


class Rig:
    def __init__(self, folder: Path, found: Sequence[Record | None], refused: int) -> None:
        self.spool = SpoolBudget(1000, folder, memory_limit=1)
        self.repeats, self.app = Finding(found), Placing(refused)
        self.paid_calls = PaidCalls(1)

    async def call(self, *headers: Header) -> Sent:
        raw = self.spool.body()
        await raw.write(b"{}")
        scope = http("POST", "/v1/images/generations", headers)
        body = RequestBody(raw, b"application/json", cast("Generation", None), b"f")
        with_exchange(scope, principal=principal(), body=body, seat=self.paid_calls.take_seat())
        try:
            return await call(RepeatsMiddleware(self.app, repeats=cast("Repeats", self.repeats)), scope)
        finally:
            assert (self.spool.used == 0) == bool(self.repeats.delivered)
            # Who waits for another's call takes nobody's place.
            assert (self.paid_calls.under_way == 0) == bool(self.repeats.delivered)
            raw.close()


async def test_a_call_that_is_told_so_gets_the_other_s_answer(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [None, FOUND], refused=1)
    sent = await rig.call()
    assert (sent.status, sent.body) == (200, b'{"joined": true}')
    assert sent.values(b"idempotent-replayed") == [b"true"]
    assert (rig.app.calls, rig.repeats.delivered) == (1, 1)


async def test_it_is_a_call_of_its_own_when_the_other_has_just_gone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [None, None], refused=1)
    sent = await rig.call()
    assert (sent.status, sent.values(b"idempotent-replayed")) == (200, [])
    assert (rig.app.calls, rig.repeats.delivered) == (2, 0)


async def test_it_may_join_the_second_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [None, None, FOUND], refused=2)
    assert (await rig.call()).body == b'{"joined": true}'
    assert rig.app.calls == 2


async def test_it_is_tried_no_more_than_twice(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [None, None, None], refused=9)
    with pytest.raises(GatewayError) as caught:
        await rig.call()
    assert (caught.value.status, caught.value.reason) == (409, "idempotency_in_progress")
    assert "Idempotency-Key" not in caught.value.message
    assert (rig.app.calls, rig.repeats.left) == (2, 0)


async def test_with_a_key_it_is_refused_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [None, FOUND], refused=1)
    with pytest.raises(RepeatedError, match="Idempotency-Key"):
        await rig.call(KEY)
    assert (rig.app.calls, rig.repeats.left) == (1, 1)
