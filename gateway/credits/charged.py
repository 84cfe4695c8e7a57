"""What calls were held at against what Pixapi charged, model by model: whether the price book is still right."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits.amount import to_decimal

LATEST = 200  # calls of a model that are compared
LOOKED_AT = 1000  # of its latest calls, to find them


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """The latest settled calls of a model: `calls` with Pixapi's own cost, their sums in micro-credits, how many cost
    more than was held; beside them `estimates`, which cost what the book says and so prove nothing."""

    calls: int
    quoted: int
    settled: int
    overruns: int
    estimates: int

    @property
    def mean_quoted(self) -> Decimal:
        """Credits, to the hundredth; of no calls, 0."""
        return _mean(self.quoted, self.calls)

    @property
    def mean_settled(self) -> Decimal:
        """Credits, to the hundredth; of no calls, 0."""
        return _mean(self.settled, self.calls)

    @property
    def drift(self) -> float | None:
        """By what share of the quotes the costs differ from them; None without calls, or when they were free."""
        return (self.settled - self.quoted) / self.quoted if self.quoted else None


async def by_model(connection: AsyncConnection, models: Collection[str]) -> dict[str, Charged]:
    """Of each model the calls to compare; without calls that have settled, nothing. In the caller's transaction."""
    await connection.execute(_ALONG_THE_INDEX)
    found = await connection.execute(
        _CHARGED, {"models": list(models), "looked": LOOKED_AT, "latest": LATEST}
    )
    return {
        row.model: Charged(
            calls=row.calls,
            quoted=int(row.quoted),
            settled=int(row.settled),
            overruns=row.overruns,
            estimates=row.estimates,
        )
        for row in found
    }


def _mean(micro: int, calls: int) -> Decimal:
    return (to_decimal(micro) / max(calls, 1)).quantize(Decimal("0.01"))


# The latest rows of a model lie at the end of an index, in order; a bitmap or a sort would take all of them first.
_ALONG_THE_INDEX = text(
    "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"
)

# Along the index of model and id, over no more rows than were asked to be looked at: `model = m.model` would make the
# planner go through every call by id to find those of a rare model.
_CHARGED = text("""
SELECT m.model, c.*
FROM unnest(CAST(:models AS text[])) AS m(model)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT estimated AND place <= :latest) AS calls,
           coalesce(sum(quote) FILTER (WHERE NOT estimated AND place <= :latest), 0) AS quoted,
           coalesce(sum(settled) FILTER (WHERE NOT estimated AND place <= :latest), 0) AS settled,
           count(*) FILTER (WHERE NOT estimated AND place <= :latest AND settled > quote) AS overruns,
           count(*) FILTER (WHERE estimated) AS estimates
    FROM (
        SELECT quote, settled, estimated,
               row_number() OVER (PARTITION BY estimated ORDER BY id DESC) AS place
        FROM (
            SELECT id, state, quote, settled, estimated FROM holds
            WHERE holds.model BETWEEN m.model AND m.model ORDER BY holds.model DESC, id DESC LIMIT :looked
        ) latest
        WHERE state = 'settled'
    ) placed
) c
WHERE c.calls + c.estimates > 0
""")
