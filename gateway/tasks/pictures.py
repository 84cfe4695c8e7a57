"""The addresses of the pictures an ended task has made, for who wants to see them. The gateway never fetches one."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.tables import tasks

MOST = 12
LONGEST = 4096
# What goes into a header must be a host and nothing else.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_TEXT = re.compile(r"[!-~]+")


class _Result(msgspec.Struct):
    type: Any = None
    data: Any = None


class _Body(msgspec.Struct):
    result: _Result | None = None


_DECODER = msgspec.json.Decoder(_Body)


async def of_task(connection: AsyncConnection, task_id: str) -> tuple[str, ...]:
    """The addresses in the stored state of a task, as Pixapi gave them; none unless it has ended."""
    query = select(tasks.c.body).where(tasks.c.id == task_id, tasks.c.ended_at.is_not(None))
    body = (await connection.execute(query)).scalar_one_or_none()
    return () if body is None else addresses(body)


def addresses(body: bytes) -> tuple[str, ...]:
    """The http and https addresses of pictures in a task's state, each once; of videos and odd bodies none. Pure."""
    try:
        result = _DECODER.decode(body).result
    except (ValueError, RecursionError):
        return ()
    if result is None or result.type != "image" or not isinstance(result.data, list):
        return ()
    found = [item.get("url") for item in result.data if isinstance(item, dict)]
    return tuple(dict.fromkeys(url for url in found if isinstance(url, str) and origin(url)))[:MOST]


def origin(url: str) -> str:
    """`https://host:port` of an address; empty for what is none that a page may show."""
    if len(url) > LONGEST or not _TEXT.fullmatch(url):
        return ""
    try:
        parts = urlsplit(url)
        host, port = parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        return ""
    name = host.removesuffix(f":{port}") if port is not None else host.removesuffix(":")
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not _HOST.fullmatch(name):
        return ""
    return f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")
