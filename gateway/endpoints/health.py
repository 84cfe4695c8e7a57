"""/healthz, /readyz and /metrics: what load balancers and Prometheus ask."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from gateway.access.admin_tokens import AdminTokens
from gateway.access.authenticator import bearer_token
from gateway.exposition import merged
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply
from gateway.siblings import Siblings
from gateway.telemetry import Metrics

JSON = (b"content-type", b"application/json")


class Alive:
    """200 as long as the process answers at all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, 200, [JSON], b'{"status":"ok"}')


@dataclass(frozen=True, slots=True)
class Ready:
    """200 when paid calls can be served: database reachable and migrated. Redis may be gone: then `degraded`.

    `check` answers the state of each dependency by name; all but `redis` must be "ok".
    """

    check: Callable[[], Awaitable[dict[str, str]]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        checks = await self.check()
        ready = all(state == "ok" for name, state in checks.items() if name != "redis")
        status = "ready" if ready else "not_ready"
        if ready and checks.get("redis") != "ok":
            status = "degraded"
        await reply(
            send, 200 if ready else 503, [JSON], msgspec.json.encode({"status": status, "checks": checks})
        )


@dataclass(frozen=True, slots=True)
class Exposition:
    """Prometheus's page: for everyone when `public`, else with the metrics token or an admin token.

    `page` is that of this process. Of several workers any is asked, and answers for all of them.
    """

    metrics: Metrics
    page: Callable[[], bytes]
    siblings: Siblings
    public: bool
    token: str | None
    admin_tokens: AdminTokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization = exchange_of(scope).header_values(b"authorization")
        given = bearer_token(authorization) or ""
        known = self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())
        if not (self.public or known):
            await self.admin_tokens.authenticate([value.decode("latin-1") for value in authorization])
        content_type = (b"content-type", CONTENT_TYPE_LATEST.encode())
        await reply(send, 200, [content_type], await self._pages())

    async def _pages(self) -> bytes:
        seat = self.siblings.seat
        if seat is None:
            pages, silent = self.page(), 0
        else:
            others = await self.siblings.pages()
            silent = seat.count - 1 - len(others)
            texts = {number: text.decode() for number, text in {seat.number: self.page(), **others}.items()}
            pages = merged(texts).encode()
        count = 1 if seat is None else seat.count
        self.metrics.workers.labels("answered").set(count - silent)
        self.metrics.workers.labels("silent").set(silent)
        return pages + generate_latest(self.metrics.scrape)
