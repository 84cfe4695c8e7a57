"""Asks Redis, and gives up in time: 150 ms a command, and left alone after failures in a row.

No caller waits longer than the operation's time-out, counted from its own call, nor longer in all than its request's
`patience`. Failures are each command that waited its time in vain, and each connection that was refused or broke. After
five in a row Redis is left alone: everyone gets CacheGone at once, until a probe of nobody's request succeeds.
An error reply is no failure of that kind, since it came in time; who asked gets CacheGone all the same.

Whoever calls this says what happens without Redis. A script runs whole or not at all, but a CacheGone does not say
which: the command may still be carried out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any

from gateway.cache.address import Address
from gateway.cache.breaker import Breaker
from gateway.cache.line import CacheGone, Reply
from gateway.cache.pipeline import Pipeline
from gateway.cache.wire import Command, ReplyError, pack
from gateway.clock import Clock
from gateway.patience import REDIS, Patience
from gateway.telemetry import Metrics

__all__ = ["CacheClient", "CacheGone", "Reply", "Script"]

log = logging.getLogger("gateway.cache")

BACKGROUND_LIMIT = 5000
REPEAT_LOG_SECONDS = 60.0
NO_SCRIPT = "NOSCRIPT"


class Script:
    """A Lua script by its text."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class CacheClient:
    """Redis or Valkey at `url`, connected to when first asked; time-outs and `breaker_seconds` in seconds."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float,
        timeout: float,
        breaker_failures: int,
        breaker_seconds: float,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._address = Address(url)
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._clock = clock
        self._metrics = metrics
        self._breaker = Breaker(breaker_failures, breaker_seconds)
        self.answered = self._breaker.succeeded  # the pipeline says so: it ends a row of failures
        self._pipeline = Pipeline(self._address, self, connect_timeout=connect_timeout, timeout=timeout)
        self._probing: asyncio.Task[bool] | None = None
        self._background: set[Reply] = set()
        self._loading: set[str] = set()  # the scripts that are on their way to the server
        self._closed = False
        self._last_refusal = ("", float("-inf"))

    async def run(self, *command: str | bytes | int) -> Any:
        """The reply to one command: bytes, int, list or None."""
        return _usable(await self._reply(pack(command), self._timeout))

    async def run_all(self, commands: Sequence[Command]) -> None:
        """Commands in one write, with one time to be answered; CacheGone when any of them was refused."""
        _usable(await self._reply(b"".join([pack(one) for one in commands]), self._timeout, len(commands)))

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """The reply of a script. Its text is sent once to a server that does not know it."""
        until = monotonic() + self._timeout
        command = _by_sha(script, keys, args)
        reply = await self._reply(command, self._timeout)
        if type(reply) is not ReplyError:
            return reply
        if _unknown(reply):
            self._load(script)
            reply = await self._reply(command, until - monotonic())
        if _unknown(reply):  # flushed in between
            reply = await self._reply(_by_text(script, keys, args), until - monotonic())
        return _usable(reply)

    def run_soon(self, *command: str | bytes | int) -> Reply | None:
        """One command, sent in this turn of the loop; lost when Redis is gone. Who has to can wait for it by `seen`."""
        return self._ask_soon(pack(command))

    def run_all_soon(self, commands: Sequence[Command]) -> Reply | None:
        """`run_soon` for several, with one reply when the last one is answered."""
        return self._ask_soon(b"".join([pack(one) for one in commands]), len(commands))

    async def seen(self, reply: Reply | None) -> None:
        """Returns when Redis has answered what was sent by `run_soon`, or has not in time."""
        if reply is not None:
            with suppress(CacheGone):
                # Who waits may be cancelled, or have no patience left: what is asked is asked all the same.
                await self._waited(asyncio.shield(reply), self._timeout, REDIS.current())

    def script_soon(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> None:
        """A script whose reply nobody awaits; lost when Redis is gone."""
        command = _by_sha(script, keys, args)

        def follow(reply: Reply) -> None:
            if reply.exception() is None and _unknown(reply.result()):
                self._load(script)
                self._ask_soon(command)

        reply = self._ask_soon(command)
        if reply is not None:
            reply.add_done_callback(follow)

    @property
    def patient(self) -> bool:
        """Whether the running request may wait for one more command, however long that takes."""
        purse = REDIS.current()
        return purse is None or purse.left >= self._timeout

    async def state(self) -> str:
        """`ok` or `unreachable` as it is now; while Redis is left alone, by a probe that makes nobody else wait."""
        if self._breaker.is_open:
            return "ok" if await asyncio.shield(self._probe()) else "unreachable"
        try:
            await self.run("PING")
        except CacheGone:
            return "unreachable"
        return "ok"

    async def close(self) -> None:
        """Lets what nobody awaits be answered, for one time-out at most, and closes every connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while self._background:
                    await asyncio.wait(set(self._background))
        self._closed = True
        self._pipeline.drop_all("closed")
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})

    # Asking --------------------------------------------------------------------------------------------------

    def _ask(self, packed: bytes, replies: int) -> Reply:
        """The future of the reply; raises CacheGone at once while Redis is left alone."""
        if self._closed:
            raise CacheGone("closed")
        if self._breaker.is_open:
            if self._probing is None and self._breaker.probe_is_due(self._clock.monotonic()):
                self._probe()
            raise CacheGone("Redis is left alone")
        return self._pipeline.ask(packed, replies)

    def _reply(self, packed: bytes, limit: float, replies: int = 1) -> Awaitable[Any]:
        """What comes back within `limit` seconds and the request's patience; error replies too."""
        purse = REDIS.current()
        if limit <= 0 or (purse is not None and purse.left <= 0):
            raise CacheGone("the time to wait for Redis is used up")
        return self._waited(self._ask(packed, replies), limit, purse)

    async def _waited(self, reply: asyncio.Future[Any], limit: float, purse: Patience | None) -> Any:
        left = limit if purse is None else min(limit, purse.left)
        started = monotonic()
        try:
            if left >= self._timeout:
                return await reply
            async with asyncio.timeout(left):
                return await reply
        except TimeoutError:
            raise CacheGone("the time to wait for Redis is used up") from None
        finally:
            if purse is not None:
                purse.spend(monotonic() - started)

    def _ask_soon(self, packed: bytes, replies: int = 1) -> Reply | None:
        if len(self._background) >= BACKGROUND_LIMIT:
            self._count("dropped")
            return None
        try:
            reply = self._ask(packed, replies)
        except CacheGone:
            return None
        self._background.add(reply)
        reply.add_done_callback(self._background.discard)
        return reply

    def _load(self, script: Script) -> None:
        """Sends the text ahead of what is asked next, once for all who find that it is missing."""
        if script.sha not in self._loading:
            reply = self._ask_soon(pack(("SCRIPT", "LOAD", script.text)))
            if reply is not None:
                self._loading.add(script.sha)
                reply.add_done_callback(lambda _: self._loading.discard(script.sha))

    # What the pipeline observes ------------------------------------------------------------------------------

    def failed(self, kind: str, detail: str, times: int) -> None:
        """Counts failures; with the last one of a row, everyone who waits learns that Redis is left alone."""
        for _ in range(times):
            self._count(kind)
            if self._breaker.failed(self._clock.monotonic()):
                log.warning("redis is left alone", extra={"reason": kind, "detail": detail})
                self._metrics.redis_open.set(1)
                self._pipeline.drop_all("Redis is left alone")

    def refused(self, text: str) -> None:
        """Counts an error reply, and says so in the log, unless it only asks for a script."""
        if text.startswith(NO_SCRIPT):
            return
        self._count("refused")
        word, now = text.partition(" ")[0], self._clock.monotonic()
        last, at = self._last_refusal
        if word != last or now - at >= REPEAT_LOG_SECONDS:
            self._last_refusal = (word, now)
            log.warning("redis refuses commands", extra={"reason": word, "detail": text[:200]})

    def _count(self, kind: str) -> None:
        self._metrics.redis_failures.labels(kind).inc()

    # The probe -----------------------------------------------------------------------------------------------

    def _probe(self) -> asyncio.Task[bool]:
        """The probe under way, or a new one. It decides whether the rest is over when that is due."""
        if self._probing is None:
            deciding = self._breaker.begin_probe(self._clock.monotonic())
            self._probing = asyncio.create_task(self._ping(deciding), context=Context())
        return self._probing

    async def _ping(self, deciding: bool) -> bool:
        answered = False
        try:
            answered = await self._pinged()
        finally:
            self._probing = None
            if deciding:
                self._breaker.probed(answered, self._clock.monotonic())
            if deciding and answered:
                log.warning("redis answers again")
                self._metrics.redis_open.set(0)
        return answered

    async def _pinged(self) -> bool:
        """Whether a connection made for this alone answers a PING in time."""
        reply: Reply = asyncio.get_running_loop().create_future()

        def settle(found: Any = None) -> None:
            if not reply.done():
                reply.set_result(found)

        try:
            wire = await self._address.connect(settle, settle, self._connect_timeout)
        except OSError:
            return False
        try:
            wire.send(pack(("PING",)))
            async with asyncio.timeout(self._timeout):
                return bool(await reply == b"PONG")
        except TimeoutError:
            return False
        finally:
            wire.close()


def _by_sha(script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> bytes:
    return pack(("EVALSHA", script.sha, len(keys), *keys, *args))


def _by_text(script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> bytes:
    return pack(("EVAL", script.text, len(keys), *keys, *args))


def _unknown(reply: Any) -> bool:
    """Whether the server does not know the script: a new server, or one that was flushed."""
    return type(reply) is ReplyError and str(reply).startswith(NO_SCRIPT)


def _usable(reply: Any) -> Any:
    if type(reply) is ReplyError:
        raise CacheGone(f"Redis refused: {reply}")
    return reply
