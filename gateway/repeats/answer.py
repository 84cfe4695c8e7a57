"""What a paid call answered, as it is kept for a repeat. Values only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError
from gateway.spool import SpooledBody


class Body(Protocol):
    """The bytes of an answer, wherever they lie; read any number of times."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """A body in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.data


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx with its body, or the error the client got. `executed` is false when certainly nothing was."""

    status: int
    content_type: bytes = b"application/json"
    body: Body | None = None
    error: GatewayError | None = None
    executed: bool = True
    unknown: bool = False  # sent, and what became of it is not known


async def whole(body: Body) -> bytes:
    """All of a body that is small enough for that."""
    if isinstance(body, SpooledBody) and body.in_memory:
        return body.read_small()
    return b"".join([chunk async for chunk in body.chunks()])


def failed(error: GatewayError, *, executed: bool, unknown: bool = False) -> Answer:
    """A call that ended with an error for its client."""
    return Answer(error.status, error=error, executed=executed, unknown=unknown)
