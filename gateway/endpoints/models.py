"""GET /v1/models and /v1/models/{id}: what this key can use, by canonical id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Principal
from gateway.catalog.model_list import ModelList, Union
from gateway.catalog.price_book import PriceBook
from gateway.catalog.price_file import PriceFile
from gateway.clock import Clock
from gateway.proxy.caching import Found, asks_anew
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply

MOST_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class Models:
    """Answers the list, or one entry of it when the route names an id; `fresh` is the response cache's rule."""

    models: ModelList
    prices: PriceFile
    clock: Clock
    _documents: dict[Any, tuple[PriceBook, bytes]] = field(
        default_factory=dict
    )  # by what they were made from

    async def fresh(self, scope: Scope) -> Found | None:
        union = self.models.fresh_union()
        return None if union is None else self._found(scope, union)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        union = await self.models.union(exchange.request_id, anew=asks_anew(exchange))
        found = self._found(scope, union)
        await reply(send, 200, found.headers, found.body)

    def _found(self, scope: Scope, union: Union) -> Found:
        exchange = exchange_of(scope)
        if exchange.principal is None:
            raise errors.internal_error()
        body = self._document(union, exchange.principal, scope["path_params"].get("id"))
        exchange.cache = union.cache
        age = max(0, int(self.clock.monotonic() - union.read_at))
        headers = [
            (b"content-type", b"application/json"),
            (b"x-cache", union.cache.encode()),
            (b"age", b"%d" % age),
        ]
        return Found(body, headers)

    def _document(self, union: Union, principal: Principal, wanted: str | None) -> bytes:
        book = self.prices.book
        made_from = (union.version, principal.team_models, principal.key_models, wanted)
        known = self._documents.get(made_from)
        if known is not None and known[0] is book:
            return known[1]
        entries = self._usable(union, principal)
        document: dict[str, Any] = {"object": "list", "data": list(entries.values())}
        if wanted is not None:
            found = entries.get(book.canonical(wanted))
            if found is None:
                raise errors.not_found(
                    "There is no model of this name that this key can use; GET /v1/models lists those it can.",
                    "model_not_found",
                )
            document = found
        if len(self._documents) >= MOST_DOCUMENTS:
            self._documents.clear()
        body = msgspec.json.encode(document)
        self._documents[made_from] = (book, body)
        return body

    def _usable(self, union: Union, principal: Principal) -> dict[str, dict[str, Any]]:
        book = self.prices.book
        return {
            model: entry
            for model, entry in union.entries.items()
            if principal.may_use(model, book.canonical) and self.prices.priced(model) is not None
        }
