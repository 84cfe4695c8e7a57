"""Where answers lie for who repeats a call: in its record, larger ones in a file, and for the seconds after one was
written out in Redis, larger ones in a file again.

What Redis loses, or a machine's disk, is an answer that is not there any more; that it was executed is in Postgres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec

from gateway import errors
from gateway.cache import entry
from gateway.cache.client import CacheClient, CacheGone
from gateway.errors import GatewayError
from gateway.repeats.answer import Answer, Body, Bytes, failed, whole
from gateway.repeats.files import AnswerFiles
from gateway.repeats.records import Kept, Record, Records

INLINE_BYTES = 1024 * 1024
REDIS_BYTES = 1024 * 1024
KEEPING_SECONDS = 30.0  # after which a call whose answer is nowhere was of a process that has gone


class _Shared(msgspec.Struct, array_like=True):
    hold: UUID
    status: int
    content_type: bytes
    body: bytes


class Shelf:
    """Raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, records: Records, files: AnswerFiles, cache: CacheClient) -> None:
        self._records = records
        self._files = files
        self._cache = cache

    async def answer(self, record: Record) -> Answer | None:
        """What the call answered, by its record and its hold; None while it runs."""
        if record.headers is not None:
            return await self._restored(record, record.headers)
        if record.state == "running" and record.hold == "held" and record.task_id is None:
            return None
        if record.state == "running" and record.ended_ago < KEEPING_SECONDS:
            return None  # its process is about to keep its answer
        try:
            if (recent := await self._from_redis(record.hold_id)) is not None:
                return recent
        except CacheGone:
            if record.ended_ago < KEEPING_SECONDS:
                return None
        if record.task_id is not None:
            return _submitted(record.task_id, record.model)
        if record.hold == "unknown":
            error = errors.outcome_unknown(
                "What became of the call that this one repeats is not known. Nothing was sent again; the platform team "
                "resolves it.",
                timed_out=False,
            )
            return failed(error, executed=True, unknown=True)
        return failed(errors.answer_not_kept(), executed=True)

    async def _restored(self, record: Record, headers: dict[str, Any]) -> Answer:
        status = record.status or 502
        if "error" in headers:
            error = GatewayError(status, headers["error"], headers["reason"], headers["message"])
            return failed(error, executed=True, unknown=record.state == "unknown")
        content_type = headers["content-type"].encode("latin-1")
        body: Body | None = Bytes(record.body) if record.body is not None else None
        if record.path is not None:
            body = await self._files.find(record.path)
        if body is None:
            return failed(errors.answer_not_kept(), executed=True)
        return Answer(status, content_type, body)

    async def keep(
        self, hold_id: UUID, answer: Answer, lives: float | None = None, *, brief: bool = False
    ) -> bool:
        """Whether all of it is kept. `lives` in seconds from now; None leaves the record's own time. `brief`: see
        `AnswerFiles.write`."""
        state = "unknown" if answer.unknown else "ended"
        headers: dict[str, Any] = {"content-type": answer.content_type.decode("latin-1")}
        data: bytes | None = None
        path: str | None = None
        if answer.error is not None:
            error = answer.error
            headers = {"error": error.type, "reason": error.reason, "message": error.message}
        elif answer.body is not None and answer.body.size <= INLINE_BYTES:
            data = await whole(answer.body)
        elif answer.body is not None:
            path = await self._files.write(hold_id, answer.body, brief=brief)
        kept = Kept(state=state, status=answer.status, headers=headers, body=data, path=path, lives=lives)
        await self._records.keep(hold_id, kept)
        return answer.body is None or data is not None or path is not None

    async def file(self, hold_id: UUID, answer: Answer, seconds: float) -> bool:
        """A large answer, for a repeat soon after it was written out; whether all of it is there."""
        try:
            return await self.keep(hold_id, answer, seconds, brief=True)
        except GatewayError:
            await self._files.remove([hold_id.hex])  # no record says when it may go
            raise

    async def share(self, answers: Sequence[tuple[UUID, Answer]], seconds: float) -> None:
        """Small ones, for repeats at other processes soon after they were written out."""
        lives = round(seconds * 1000)
        for some in _pieces(answers):
            try:
                await self._cache.run_all(
                    [
                        ("SET", _name(hold_id), await _packed(hold_id, one), "PX", lives)
                        for hold_id, one in some
                    ]
                )
            except (CacheGone, GatewayError):
                for hold_id, one in some:
                    with suppress(GatewayError):
                        await self.keep(hold_id, one, seconds, brief=True)

    async def _from_redis(self, hold_id: UUID) -> Answer | None:
        there = await self._cache.run("GET", _name(hold_id))
        found = entry.decode(there, _Shared) if isinstance(there, bytes) else None
        if found is None or found.hold != hold_id:
            return None
        return Answer(found.status, found.content_type, Bytes(found.body))

    async def clear(self, names: list[str]) -> None:
        """Removes these files, and what has lain too long."""
        await self._files.remove(names)
        await self._files.clear()


def is_large(answer: Answer) -> bool:
    """Whether it is for `Shelf.file`, not for `Shelf.share`."""
    return answer.body is not None and answer.body.size > REDIS_BYTES


def _pieces(answers: Sequence[tuple[UUID, Answer]]) -> Iterator[list[tuple[UUID, Answer]]]:
    """Those with a body, so many at a time that Redis has them soon."""
    piece: list[tuple[UUID, Answer]] = []
    size = 0
    for hold_id, answer in answers:
        if answer.body is not None:
            piece.append((hold_id, answer))
            size += answer.body.size
        if size >= REDIS_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


async def _packed(hold_id: UUID, answer: Answer) -> bytes:
    data = b"" if answer.body is None else await whole(answer.body)
    return msgspec.msgpack.encode(_Shared(hold_id, answer.status, answer.content_type, data))


def _submitted(task_id: str, model: str) -> Answer:
    """The answer of an asynchronous call whose own was not kept: its task says all of it."""
    document = {"status": "submitted", "id": task_id, "progress": 0, "model": model}
    return Answer(200, body=Bytes(msgspec.json.encode(document)))


def _name(hold_id: UUID) -> str:
    return f"pxg:answer:{hold_id.hex}"
