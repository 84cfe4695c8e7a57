"""Gives every request its exchange and request id, and writes one log line when it is answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import logs
from gateway.access.principal import Address, Network
from gateway.access.refusals import Refusal
from gateway.clock import Clock
from gateway.ids import new_request_id
from gateway.logs import RequestLine
from gateway.patience import POSTGRES, REDIS
from gateway.proxy.exchange import Exchange, Headers, begin
from gateway.proxy.generation import Operation
from gateway.proxy.leaving import Listening
from gateway.proxy.refused import PREFIX, refusal_of
from gateway.telemetry import Metrics
from gateway.tracing import Tracing, entered

PAID = frozenset(operation.path for operation in Operation)
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestContextMiddleware:
    """Outermost: everything below finds the exchange in the scope."""

    def __init__(
        self,
        app: ASGIApp,
        clock: Clock,
        metrics: Metrics,
        trusted_proxies: Sequence[Network] = (),
        tracing: Tracing | None = None,
        note: Callable[[Refusal], None] | None = None,
    ) -> None:
        """`note` is told of refusals that are worth keeping."""
        self._app = app
        self._clock = clock
        self._metrics = metrics
        self._own_seconds = metrics.own_seconds.labels()
        self._trusted = tuple(trusted_proxies)
        self._tracing = tracing or Tracing()
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = tuple(scope["headers"])
        peer = _peer(scope)
        exchange = Exchange(
            request_id=_request_id(headers),
            started=self._clock.monotonic(),
            client=client_address(peer.address, headers, self._trusted) if self._trusted else peer.address,
            headers=headers,
        )
        begin(scope, exchange)
        trace = self._tracing.request(exchange.header_values(b"traceparent"))
        if trace is not None:
            exchange.answer_headers.append((b"traceresponse", trace.header))
        listening = Listening(scope, exchange, receive)

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = (b"x-request-id", exchange.request_id.encode())
                message["headers"] = [*message["headers"], own, *exchange.answer_headers]
            return send(message)

        try:
            with REDIS.patience(), POSTGRES.patience():
                if trace is None:
                    await self._app(scope, listening, answer)
                else:
                    with entered(trace):
                        await self._app(scope, listening, answer)
        finally:
            status = 499 if listening.left and exchange.status == 0 else exchange.status
            route = scope["route"].path if "route" in scope else "unmatched"
            method, path = scope["method"], scope["path"]
            seconds = self._clock.monotonic() - exchange.started
            self._count(exchange, route, method, status, seconds)
            if exchange.refused is not None or exchange.repeated is not None:
                self._keep(exchange, route, method, path, status)
            client = peer.text if exchange.client is peer.address else str(exchange.client)
            logs.request(_line(exchange, method, path, status, seconds, client))
            if trace is not None:
                trace.end(method, route, status, _attributes(exchange))

    def _count(self, exchange: Exchange, route: str, method: str, status: int, seconds: float) -> None:
        metrics = self._metrics
        metrics.requests_by[route, method, status].inc()
        if not exchange.waited:
            metrics.seconds_by[(route,)].observe(seconds)
        if exchange.cache is not None:
            metrics.cache_results_by[route, exchange.cache].inc()
        if exchange.upstream_ms is not None:
            self._own_seconds.observe(max(0.0, seconds - exchange.upstream_ms / 1000))
        if exchange.failure is not None and route in PAID and _refused(exchange, status):
            metrics.refusals.labels(exchange.failure).inc()

    def _keep(self, exchange: Exchange, route: str, method: str, path: str, status: int) -> None:
        """Notes what there may be to explain later."""
        if self._note is not None and path.startswith(PREFIX):
            refusal = refusal_of(exchange, method, route, status, self._clock.now())
            if refusal is not None:
                self._note(refusal)


def _line(
    exchange: Exchange, method: str, path: str, status: int, seconds: float, client: str | None
) -> RequestLine:
    principal, hold = exchange.principal, exchange.hold
    return RequestLine(
        request_id=exchange.request_id,
        method=method,
        path=path[:200],
        status=status,
        reason=exchange.failure,
        milliseconds=round(seconds * 1000, 1),
        upstream_ms=exchange.upstream_ms,
        team=principal.team_slug if principal else None,
        key=principal.key_id if principal else None,
        # Only what the price book knows: a client may put anything into the field.
        model=hold.order.model if hold else None,
        operation=exchange.operation.value if exchange.operation else None,
        hold=hold.id if hold else None,
        task_id=exchange.task_id,
        upstream_key=exchange.upstream_key,
        attempts=exchange.attempts or None,
        cache=exchange.cache,
        client=client,
    )


def _refused(exchange: Exchange, status: int) -> bool:
    """Whether nothing was sent; the reasons are then words of ours, and few."""
    return exchange.attempts == 0 and exchange.repeated is None and (status < 500 or status == 503)


def _attributes(exchange: Exchange) -> dict[str, str | None]:
    principal, hold = exchange.principal, exchange.hold
    return {
        "gateway.request_id": exchange.request_id,
        "gateway.team": principal.team_slug if principal else None,
        "gateway.model": hold.order.model if hold else None,
        "gateway.operation": exchange.operation.value if exchange.operation else None,
        "gateway.hold": str(hold.id) if hold else None,
        "gateway.task_id": exchange.task_id,
        "gateway.cache": exchange.cache,
        "error.type": exchange.failure,
    }


def client_address(peer: Address | None, headers: Headers, trusted: Sequence[Network]) -> Address | None:
    """Who sent this: the socket's peer, or behind trusted proxies the right-most address none of them is.

    Without trusted proxies X-Forwarded-For is ignored, whatever it says.
    """
    if peer is None or not _within(peer, trusted):
        return peer
    hops = [
        hop.strip()
        for name, value in headers
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:
            return peer
        if not _within(address, trusted):
            return address
    return peer


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return bool(networks) and any(address in network for network in networks)


class _Peer(NamedTuple):
    address: Address | None
    text: str | None


_NOBODY = _Peer(None, None)


def _peer(scope: Scope) -> _Peer:
    client = scope.get("client")
    return _NOBODY if client is None else _known_peer(client[0])


@lru_cache(maxsize=10_000)
def _known_peer(text: str) -> _Peer:
    address = _address(text)
    return _NOBODY if address is None else _Peer(address, str(address))


@lru_cache(maxsize=10_000)
def _address(text: str) -> Address | None:
    """The address in `text`; IPv4 that arrived on an IPv6 socket as IPv4, so that it meets IPv4 networks."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _request_id(headers: Headers) -> str:
    """The client's own id when it sent exactly one sane one, else a new one."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _SANE_ID.fullmatch(given[0]):
        return given[0].decode()
    return new_request_id()
