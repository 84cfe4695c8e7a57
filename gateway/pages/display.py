"""How amounts, times and shares are written on pages. Pure; exact amounts stay exact."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from gateway.credits.amount import to_decimal

Text = Callable[..., str]  # gettext with the values of its %(placeholders)s
DECIMALS = 2  # at least; a credit has up to six


def amount(value: Decimal | int | None) -> str:
    """`12,345.50`: every digit there is, at least two behind the point, so that columns align; `–` for none."""
    if value is None:
        return "–"
    exact = Decimal(value)
    exponent = exact.normalize().as_tuple().exponent
    places = max(DECIMALS, -exponent if isinstance(exponent, int) else DECIMALS)
    return f"{exact:,.{places}f}"


def micro(value: int | None) -> str:
    """Micro-credits as `amount` writes them."""
    return amount(None if value is None else to_decimal(value))


def whole(value: Decimal | int) -> str:
    """`12,346`: rounded, for large figures with the exact amount beside them."""
    return f"{Decimal(value).quantize(Decimal(1), ROUND_HALF_UP):,}"


def count(value: int | None) -> str:
    """`12,345`."""
    return "–" if value is None else f"{value:,}"


def percent(share: float | Decimal | None) -> str:
    """A share of one as `97 %`; small ones keep a digit, and only a whole one is 100 %."""
    if share is None:
        return "–"
    hundred = Decimal(str(share)) * 100
    if 0 < hundred < 10:
        return f"{hundred:.1f} %"
    return f"{int(hundred)} %" if hundred < 100 else f"{hundred:.0f} %"


def moment(value: datetime | None) -> str:
    """`2026-11-22 20:41:05`, in UTC."""
    return "–" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def minute(value: datetime | None) -> str:
    """`2026-11-22 20:41`, in UTC."""
    return "–" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def ago(value: datetime | None, now: datetime, text: Text) -> str:
    """How long ago or ahead in one unit: `3 h ago`, `in 5 min`."""
    if value is None:
        return text("never")
    seconds = int((now - value).total_seconds())
    size = abs(seconds)
    if size < 5:
        return text("now")
    for length, unit in ((86_400, text("%(n)s d")), (3600, text("%(n)s h")), (60, text("%(n)s min"))):
        if size >= length:
            span = unit % {"n": size // length}
            break
    else:
        span = text("%(n)s s") % {"n": size}
    return (text("%(span)s ago") if seconds > 0 else text("in %(span)s")) % {"span": span}


def milliseconds(value: int | None) -> str:
    """`4.2 s`, `840 ms`."""
    if value is None:
        return "–"
    return f"{value} ms" if value < 1000 else f"{value / 1000:.1f} s"
