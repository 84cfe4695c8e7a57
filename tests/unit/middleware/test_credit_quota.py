"""No paid call without a hold: priced, placed, and released when nobody claimed it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.catalog.model_entries import ModelEntries
from gateway.catalog.model_list import ModelList
from gateway.catalog.price_file import PriceFile
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, Order, Placed
from gateway.errors import GatewayError
from gateway.middleware.credit_quota import CreditQuotaMiddleware
from gateway.pool.dispatch import Dispatcher
from gateway.proxy.exchange import Exchange, RequestBody
from gateway.proxy.generation import Generation, Operation
from gateway.spool import SpoolBudget
from tests.fakes.asgi import call, http, ok, with_exchange
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock
from tests.fakes.key_table import KeyTable, pool_of
from tests.fakes.principals import TEAM_ID, principal
from tests.fakes.upstream import BUDGET, Answer, FakeUpstream

PRICES = Path(__file__).parents[3] / "config" / "models.toml"
LISTED = ("gemini-2.5-flash-image", "gpt-image-1.5", "veo", "unpriced")
HOLD = UUID(int=5)
IMAGES, VIDEOS = Operation.IMAGES_GENERATIONS, Operation.ASYNC_VIDEOS_GENERATIONS


class NotedLedger(Ledger):
    """Remembers holds placed and how they ended."""

    def __init__(self) -> None:
        self.placed: list[Order] = []
        self.ended: list[tuple[UUID, Conclusion]] = []
        self.down = False

    async def place(self, order: Order) -> Placed:
        if self.down:
            raise errors.dependency_unavailable("down")
        self.placed.append(order)
        return Placed(id=HOLD, remaining=None, shadow_refused=False)

    async def end_surely(
        self, hold_id: UUID, conclusion: Conclusion, sent: Any = (), order: Order | None = None
    ) -> None:
        self.ended.append((hold_id, conclusion))


class Rig:
    """The middleware with the shipped prices before an app of the test."""

    def __init__(self, models: ModelList, default_hold: int | None) -> None:
        self.models = models
        self.prices = PriceFile(PRICES, default_hold)
        self.ledger = NotedLedger()
        self.spool = SpoolBudget(1000, Path("/nonexistent"))

    @classmethod
    async def of(cls, default_hold: int | None = None) -> Rig:
        table, clock = KeyTable(), FakeClock()
        table.add("main")
        listing = msgspec.json.encode({"data": [{"id": model} for model in LISTED]})
        pool = await pool_of(table, clock)
        upstream = FakeUpstream(lambda _: Answer(200, listing))
        models = ModelList(pool, Dispatcher(pool, upstream, clock), ModelEntries(GoneCache()), clock)
        await models.warm()
        return cls(models, default_hold)

    async def call(
        self, wanted: Generation, operation: Operation = IMAGES, app: ASGIApp = ok, **caller: Any
    ) -> Exchange:
        scope = http("POST", operation.path)
        body = RequestBody(BUDGET.body(), b"application/json", wanted, b"")
        exchange = with_exchange(scope, principal=principal(**caller), operation=operation, body=body)
        middleware = CreditQuotaMiddleware(
            app,
            prices=self.prices,
            models=self.models,
            ledger=self.ledger,
            spool=self.spool,
        )
        await call(middleware, scope)
        return exchange

    async def refused(self, wanted: Generation, operation: Operation = IMAGES, **caller: Any) -> str:
        """Status and reason of the refusal, which must leave no hold."""
        with pytest.raises(GatewayError) as caught:
            await self.call(wanted, operation, **caller)
        assert self.ledger.placed == []
        return f"{caught.value.status} {caught.value.reason}"


def wish(model: str, **fields: Any) -> Generation:
    plain: dict[str, Any] = {
        "images": 1, "sizes": (), "quality": None, "seconds": None, "input_images": 0,
    }  # fmt: skip
    return Generation(model, **(plain | fields))


async def claiming(scope: Scope, receive: Receive, send: Send) -> None:
    exchange: Exchange = scope["gateway.exchange"]
    assert exchange.hold is not None
    exchange.hold.claimed = True
    await ok(scope, receive, send)


@pytest.mark.parametrize(
    ("wanted", "operation", "model", "quote", "charged"),
    [
        (wish("nano-banana", images=3), IMAGES, "gemini-2.5-flash-image", 6, 6),
        (wish("gpt-image-1.5", quality="high", sizes=("4096x4096",)), IMAGES, "gpt-image-1.5", 8, 1),
        (wish("veo", seconds=Decimal("2.5")), VIDEOS, "veo", 5, Decimal("2.5")),
    ],
)
async def test_a_call_is_held_at_its_price_under_its_model_s_own_name(
    wanted: Generation, operation: Operation, model: str, quote: float, charged: float
) -> None:
    rig = await Rig.of()
    exchange = await rig.call(wanted, operation, claiming)
    (order,) = rig.ledger.placed
    assert order == Order(
        team_id=TEAM_ID,
        key_id="0123456789",
        request_id="req_test",
        operation=operation.value,
        model=model,
        quote=int(quote * 1_000_000),
        charge=int(charged * 1_000_000),
        team=principal().team_slug,
    )
    assert exchange.hold is not None
    assert (exchange.hold.id, exchange.hold.charged) == (HOLD, int(charged * 1_000_000))
    assert rig.ledger.ended == []


async def test_a_hold_nobody_claimed_is_released() -> None:
    rig = await Rig.of()
    await rig.call(wish("veo"), VIDEOS)
    assert rig.ledger.ended == [(HOLD, Conclusion(state="released", reason="never sent"))]


@pytest.mark.parametrize("claims", [True, False])
async def test_also_when_the_endpoint_fails(claims: bool) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if claims:
            await claiming(scope, receive, send)
        raise RuntimeError("a defect")

    rig = await Rig.of()
    with pytest.raises(RuntimeError):
        await rig.call(wish("veo"), VIDEOS, failing)
    assert len(rig.ledger.ended) == (0 if claims else 1)


@pytest.mark.parametrize(
    ("wanted", "operation", "caller", "expected"),
    [
        (wish("veo"), VIDEOS, {"key_models": frozenset({"wan"})}, "403 model_not_allowed"),
        (wish("unpriced"), IMAGES, {}, "403 model_without_price"),
        (wish("wan"), VIDEOS, {}, "404 model_not_offered"),
        (wish("veo"), IMAGES, {}, "400 invalid_request"),
        (wish("gpt-image-1.5"), VIDEOS, {}, "400 invalid_request"),
        (wish("gpt-image-1.5", images=11), IMAGES, {}, "400 invalid_request"),
        (wish("veo", seconds=Decimal("60.1")), VIDEOS, {}, "400 invalid_request"),
    ],
)
async def test_what_is_refused_places_no_hold(
    wanted: Generation, operation: Operation, caller: dict[str, Any], expected: str
) -> None:
    assert await (await Rig.of()).refused(wanted, operation, **caller) == expected


@pytest.mark.parametrize("operation", [IMAGES, VIDEOS])
async def test_a_model_without_a_price_may_be_held_at_a_default(operation: Operation) -> None:
    rig = await Rig.of(default_hold=25_000_000)
    await rig.call(wish("unpriced", seconds=Decimal(9) if operation is VIDEOS else None), operation, claiming)
    assert rig.ledger.placed[0].quote == 25_000_000


async def test_without_room_for_an_answer_no_hold_is_placed() -> None:
    rig = await Rig.of()
    rig.spool.take(901)
    assert await rig.refused(wish("veo"), VIDEOS) == "503 spool_full"
    rig.spool.give_back(1)
    await rig.call(wish("veo"), VIDEOS, claiming)


async def test_without_postgres_nothing_passes() -> None:
    rig = await Rig.of()
    rig.ledger.down = True
    assert await rig.refused(wish("veo"), VIDEOS) == "503 database_unavailable"
