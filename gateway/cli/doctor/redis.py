"""Redis: reachable, new enough, writable, quick enough, and told what to do when it is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.cache.address import Address
from gateway.cache.wire import ReplyError, pack
from gateway.cli.doctor.check import Check, fail, ok, size, warn, worst
from gateway.settings import Settings
from gateway.settings.secrets import mask_address

NAME = "Redis"
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 2.0
PINGS = 5
LEAST_VERSION = (6, 2)
WITHOUT = "Without it each gateway limits and caches alone, and changes arrive within 10 s"
KEY = "pixapi-gateway:doctor"


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`info`: the fields of INFO, empty when it may not be asked; `refusal`: what a write was answered, None when it
    was taken; `seconds`: the slowest of some pings."""

    info: Mapping[str, str]
    refusal: str | None
    seconds: float


def judge(facts: RedisFacts, settings: Settings) -> list[Check]:
    """What is wrong with a Redis that answers."""
    info, wrong = facts.info, []
    # Valkey says in redis_version which Redis it is compatible with.
    shown = f"Valkey {info['valkey_version']}" if "valkey_version" in info else info.get("redis_version", "?")
    version = _version(info.get("redis_version", ""))
    if info and version < LEAST_VERSION:
        wrong.append(fail(NAME, f"version {shown}", "install Redis 6.2 or newer, or Valkey"))
    if info.get("role", "master") != "master":
        text = f"is a {info['role']} of {info.get('master_host', 'another')}, which takes no writes"
        wrong.append(fail(NAME, text, "set redis.url to the primary"))
    elif facts.refusal is not None:
        text = f"refuses a write: {facts.refusal}"
        wrong.append(fail(NAME, text, "give the login of redis.url the right to write, or free its memory"))
    limit, policy = int(info.get("maxmemory", "0") or 0), info.get("maxmemory_policy", "")
    if limit and policy == "noeviction":
        text = f"refuses writes when its {size(limit)} are full (maxmemory-policy noeviction)"
        wrong.append(warn(NAME, text, "set maxmemory-policy to allkeys-lru: nothing in it has to be kept"))
    if facts.seconds > settings.redis.timeout:
        text = (
            f"took {facts.seconds * 1000:.0f} ms to answer, and redis.timeout is {settings.redis.timeout:g} s"
        )
        wrong.append(fail(NAME, text, f"use one nearby, or raise redis.timeout. {WITHOUT}"))
    elif facts.seconds > settings.redis.timeout / 3:
        text = (
            f"took {facts.seconds * 1000:.0f} ms to answer of the {settings.redis.timeout * 1000:.0f} it may"
        )
        wrong.append(warn(NAME, text, "use one nearby: every request waits for it"))
    return worst(wrong, ok(NAME, f"version {shown}, answers in {facts.seconds * 1000:.1f} ms"))


async def look(settings: Settings) -> list[Check]:
    """Asks it on a connection of its own."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS + ANSWER_SECONDS):
            facts = await _ask(settings.redis.url)
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"{mask_address(settings.redis.url)} cannot be reached ({reason or 'no answer in time'})"
        return [fail(NAME, text, f"start it, or correct redis.url. {WITHOUT}")]
    return judge(facts, settings)


async def _ask(url: str) -> RedisFacts:
    replies: asyncio.Queue[Any] = asyncio.Queue()
    lost = ConnectionResetError("closed while asking")
    wire = await Address(url).connect(replies.put_nowait, lambda: replies.put_nowait(lost), CONNECT_SECONDS)

    async def run(*command: str | bytes | int) -> Any:
        wire.send(pack(command))
        reply = await replies.get()
        if reply is lost:
            raise lost
        return reply

    try:
        slowest = 0.0
        for _ in range(PINGS):
            started = time.perf_counter()
            await run("PING")
            slowest = max(slowest, time.perf_counter() - started)
        info = await run("INFO")
        written = await run("SET", KEY, "1", "PX", 1000)
    finally:
        wire.close()
    refusal = str(written) if isinstance(written, ReplyError) else None
    return RedisFacts(_fields(info), refusal, slowest)


def _fields(info: object) -> dict[str, str]:
    if not isinstance(info, bytes):
        return {}
    lines = [line.partition(":") for line in info.decode("utf-8", "replace").splitlines()]
    return {name: value for name, colon, value in lines if colon}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
