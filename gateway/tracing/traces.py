"""What the gateway tells of a request's way, and the tracing that tells nobody.

A request that is recorded has a `Trace`; everything it does, also in tasks that outlive it, finds that by `current`.
Attributes are named here and nowhere else: never a body, a prompt, a key or a header.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_PARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-"
    rb"(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span, as its `traceparent` names it."""

    trace_id: int
    span_id: int
    sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One send to Pixapi: it took `seconds` and has just ended. `path` is the route's template."""

    method: str
    path: str
    outcome: str
    status: int | None
    upstream_key: str
    repeats: int  # sends of the same call before it
    seconds: float


class Trace(ABC):
    """The recorded trace of one request."""

    @property
    @abstractmethod
    def header(self) -> bytes:
        """The request's span, as a `traceresponse` names it."""

    @abstractmethod
    def sent(self, one: Sent) -> None:
        """A span of its own for one send."""

    @abstractmethod
    def end(self, method: str, route: str, status: int, attributes: Mapping[str, str | None]) -> None:
        """The request is answered."""


class Tracing:
    """Records nothing: what a gateway without `tracing.endpoint` has."""

    def open(self) -> None:
        """Begins to export, in a thread of its own."""

    def close(self) -> None:
        """Exports what is left, for two seconds at most. Blocks."""

    def request(self, traceparent: list[bytes]) -> Trace | None:
        """The trace of a request that begins, under its caller's span if it names one; None when it is not recorded."""
        return None


class TracingUnavailableError(Exception):
    """`tracing.endpoint` is set and the extra is not installed."""


def begin(endpoint: str | None, sample: float) -> Tracing:
    """The tracing for these settings; nothing is connected before `open`. Raises TracingUnavailableError."""
    if endpoint is None:
        return Tracing()
    try:
        otlp = importlib.import_module("gateway.tracing.otlp")
    except ImportError as error:
        raise TracingUnavailableError(
            f"tracing.endpoint is set, but the extra 'otel' is not installed ({error}): "
            "pip install 'pixapi-gateway[otel]', or take tracing.endpoint away"
        ) from error
    made: Tracing = otlp.OtlpTracing(endpoint, sample)
    return made


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
current = _CURRENT.get


@contextmanager
def entered(trace: Trace) -> Iterator[None]:
    """`current()` is this trace within the block, and in tasks begun there."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def parent_in(traceparent: list[bytes]) -> Parent | None:
    """W3C's `traceparent`; None for none, for several, and for one that is malformed."""
    found = _PARENT.fullmatch(traceparent[0]) if len(traceparent) == 1 else None
    if found is None or (found["version"] == b"00" and found["more"]):
        return None
    return Parent(int(found["trace"], 16), int(found["span"], 16), bool(int(found["flags"], 16) & 1))
