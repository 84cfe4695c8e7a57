"""What calls say of their keys, on its way to Postgres: in the background, one transaction at a time for each key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool import rests
from gateway.pool.health import Word

log = logging.getLogger("gateway.pool")

CLOSE_SECONDS = 2.0


class Notes:
    """`announce` is told the id of each key whose row was changed, after the commit."""

    def __init__(self, database: Database, clock: Clock, announce: Callable[[str], None]) -> None:
        self._database = database
        self._clock = clock
        self._announce = announce
        # A thousand refusals at once are few words: of one kind, the last says all.
        self._waiting: dict[UUID, dict[Any, Word]] = {}
        self._writers: dict[UUID, asyncio.Task[None]] = {}
        self._written: dict[UUID, float] = {}  # when the last word was there

    def add(self, key: UUID, word: Word) -> None:
        """Writes the word down soon."""
        self._waiting.setdefault(key, {})[word.use, word.verdict, word.trial, word.broke] = word
        if key not in self._writers:
            self._writers[key] = asyncio.create_task(self._write(key))

    def newer_than(self, asked: float) -> set[UUID]:
        """The keys on which this process has said something that a reading asked for at `asked` may not show."""
        return {key for key, at in self._written.items() if at >= asked} | self._writers.keys()

    async def close(self) -> None:
        """Waits for what is being written, for a moment."""
        if self._writers:
            await asyncio.wait(set(self._writers.values()), timeout=CLOSE_SECONDS)

    async def _write(self, key: UUID) -> None:
        try:
            while words := list(self._waiting.pop(key, {}).values()):
                await self._store(key, words)
        finally:
            del self._writers[key]

    async def _store(self, key: UUID, words: list[Word]) -> None:
        changed = False
        try:
            async with self._database.transaction() as connection:
                changed = await rests.note(connection, key, words, self._clock.monotonic())
        except GatewayError:
            log.warning("a rest was not written down", extra={"upstream_key": str(key)})
        self._written[key] = self._clock.monotonic()
        if changed:
            self._announce(str(key))
