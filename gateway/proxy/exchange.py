"""What one request has learnt on its way through: the single mutable object of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from starlette.types import Scope

from gateway.access.principal import Address, Principal
from gateway.catalog.price_book import ModelPrice
from gateway.credits.terms import Order, Repeatable
from gateway.errors import GatewayError
from gateway.proxy.generation import Generation, Operation
from gateway.proxy.paid_calls import Seat
from gateway.spool import SpooledBody

Headers = tuple[tuple[bytes, bytes], ...]
Named = dict[bytes, list[bytes]]  # headers' values by their lower-case names
_KEY = "gateway.exchange"


@dataclass(slots=True)
class RequestBody:
    """The body as it was sent, and what of it prices the call."""

    raw: SpooledBody
    content_type: bytes
    generation: Generation
    fingerprint: bytes  # the same for the same route and content, whatever a form's boundary


@dataclass(slots=True)
class Hold:
    """The hold of a paid call. Whoever `claims` it answers it; unclaimed, the middleware releases it."""

    id: UUID
    order: Order
    model: ModelPrice
    charged: int  # what the price book says the call costs, when Pixapi does not
    remaining: int | None  # on the tightest quota, with this hold on it
    claimed: bool = False


class Exchange(msgspec.Struct):
    """One request and its answer. Middleware and endpoints write what they find out; the access log reads it."""

    request_id: str
    started: float  # monotonic
    client: Address | None
    headers: Headers  # as they were when the head was complete: trailers never reach it
    principal: Principal | None = None
    operation: Operation | None = None
    body: RequestBody | None = None
    seat: Seat | None = None
    repeatable: Repeatable | None = None
    repeated: str | None = None  # the hold of the call that this request repeats
    hold: Hold | None = None
    task_id: str | None = None
    upstream_key: str | None = None
    upstream_ms: int | None = None
    attempts: int = 0
    cache: str | None = None
    waited: bool = False  # on its client's wish, so how long it took says nothing
    status: int = 0  # of the answer, once it has begun
    answer_headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    body_complete: bool = False  # whether the request's body has been read to its end
    failure: str | None = None  # the reason of the error that was answered
    refused: GatewayError | None = None  # that error itself, when it was the whole answer
    when_failure_sent: Callable[[], None] | None = None  # for a call that was executed, or may have been

    named: Named = msgspec.field(default_factory=dict)  # the headers again

    def __post_init__(self) -> None:
        named: Named = {}
        for name, value in self.headers:
            if name in named:
                named[name].append(value)
            else:
                named[name] = [value]
        self.named = named

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        values = self.named.get(name)
        return values[0] if values else None

    def header_values(self, name: bytes) -> list[bytes]:
        """All of them, in order; not to be changed."""
        return self.named.get(name, [])


def begin(scope: Scope, exchange: Exchange) -> None:
    """Attaches the exchange to the request."""
    scope[_KEY] = exchange


def exchange_of(scope: Any) -> Exchange:
    """The exchange of a request that has passed `request_context`."""
    found: Exchange = scope[_KEY]
    return found
