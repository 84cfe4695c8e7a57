"""No paid call without a hold: resolves the model, prices the call, places the hold, and sees it answered.

Room for the answer is looked for before the hold is placed, so a process without any places none. An endpoint that
starts the call claims the hold and answers it; a hold nobody claimed is released here, whatever happened.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Principal
from gateway.catalog import price_book
from gateway.catalog.model_list import ModelList
from gateway.catalog.price_book import ModelPrice, Price
from gateway.catalog.price_file import PriceFile
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, Order
from gateway.proxy.exchange import Exchange, Hold, exchange_of
from gateway.proxy.generation import Generation, Operation, size_class
from gateway.spool import SpoolBudget


class CreditQuotaMiddleware:
    """Sits right before the endpoint of every metered route."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        prices: PriceFile,
        models: ModelList,
        ledger: Ledger,
        spool: SpoolBudget,
    ) -> None:
        self._app = app
        self._prices = prices
        self._models = models
        self._ledger = ledger
        self._spool = spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        model, price = self._price(exchange)
        self._spool.check_room()
        try:
            exchange.hold = await self._place(exchange, model, price)
            await self._app(scope, receive, send)
        finally:
            if exchange.hold is not None and not exchange.hold.claimed:
                await asyncio.shield(self._release(exchange.hold))

    def _price(self, exchange: Exchange) -> tuple[ModelPrice, Price]:
        principal, body, operation = exchange.principal, exchange.body, exchange.operation
        if principal is None or body is None or operation is None:
            raise errors.internal_error()
        wanted = body.generation
        model = self._model(wanted.model, principal)
        check_bounds(model, wanted, operation)
        price = price_book.quote(
            model,
            operation=operation.value,
            images=wanted.images,
            sizes=[size_class(size) for size in wanted.sizes] if wanted.sizes else (),
            quality=wanted.quality,
            seconds=wanted.seconds,
            input_images=wanted.input_images,
        )
        return model, price

    def _model(self, name: str, principal: Principal) -> ModelPrice:
        book = self._prices.book
        canonical = book.canonical(name)
        if not principal.may_use(canonical, book.canonical):
            raise errors.forbidden(
                f"This key may not use the model '{name}'; the platform team sets its allowed models.",
                "model_not_allowed",
            )
        model = self._prices.priced(canonical)
        if model is None:
            raise errors.forbidden(
                f"The model '{name}' has no price here, so it cannot be held against a quota. An admin adds "
                f'[models."{canonical}"] with its credits to models.toml.',
                "model_without_price",
            )
        if not self._models.anyone_lists(canonical):
            raise errors.not_found(
                f"No Pixapi account behind this gateway offers the model '{name}'; GET /v1/models lists those that "
                "can be used.",
                "model_not_offered",
            )
        return model

    async def _place(self, exchange: Exchange, model: ModelPrice, price: Price) -> Hold:
        principal, operation = exchange.principal, exchange.operation
        if principal is None or operation is None:
            raise errors.internal_error()
        order = Order(
            team_id=principal.team_id,
            key_id=principal.key_id,
            request_id=exchange.request_id,
            operation=operation.value,
            model=model.id,
            quote=price.hold,
            charge=None if model.category is None else price.credits,  # what has no category has no price
            repeatable=exchange.repeatable,
            team=principal.team_slug,
        )
        placed = await self._ledger.place(order)
        return Hold(placed.id, order, model, price.credits, placed.remaining)

    async def _release(self, hold: Hold) -> None:
        await self._ledger.end_surely(hold.id, Conclusion(state="released", reason="never sent"))


def check_bounds(model: ModelPrice, wanted: Generation, operation: Operation) -> None:
    """Raises 400 when the request is outside what the price book says the model can do."""
    if model.category not in (operation.media, None):
        right = "/v1/async/videos/generations" if model.category == "video" else "/v1/images/generations"
        raise errors.bad_request(f"The model '{wanted.model}' makes {model.category}s: send it to {right}.")
    if wanted.images > model.max_n:
        raise errors.bad_request(
            f"The field 'n' may be at most {model.max_n} for the model '{wanted.model}'."
        )
    if model.per == "second" and wanted.seconds is not None and wanted.seconds > model.max_seconds:
        raise errors.bad_request(
            f"The field 'duration' may be at most {model.max_seconds} seconds for the model '{wanted.model}'."
        )
