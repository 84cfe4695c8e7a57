"""GET /v1/models and /v1/models/{id}: what this key can use, by canonical id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Principal
from gateway.catalog.model_list import ModelList, Union
from gateway.catalog.price_file import PriceFile
from gateway.clock import Clock
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply


@dataclass(frozen=True, slots=True)
class Models:
    """Answers the list, or one entry of it when the route names an id."""

    models: ModelList
    prices: PriceFile
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        if exchange.principal is None:
            raise errors.internal_error()
        union = await self.models.union(exchange.request_id)
        entries = self._usable(union, exchange.principal)
        exchange.cache = union.cache
        document: dict[str, Any] = {"object": "list", "data": list(entries.values())}
        wanted = scope["path_params"].get("id")
        if wanted is not None:
            found = entries.get(self.prices.book.canonical(wanted))
            if found is None:
                raise errors.not_found(
                    "There is no model of this name that this key can use; GET /v1/models lists those it can.",
                    "model_not_found",
                )
            document = found
        age = max(0, int(self.clock.monotonic() - union.read_at))
        headers = [
            (b"content-type", b"application/json"),
            (b"x-cache", union.cache.encode()),
            (b"age", b"%d" % age),
        ]
        await reply(send, 200, headers, msgspec.json.encode(document))

    def _usable(self, union: Union, principal: Principal) -> dict[str, dict[str, Any]]:
        book = self.prices.book
        return {
            model: entry
            for model, entry in union.entries.items()
            if principal.may_use(model, book.canonical) and self.prices.priced(model) is not None
        }
