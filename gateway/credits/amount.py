"""Credits: integers of one millionth inside, exact decimals outside. Never a float.

`MICRO` micro-credits are one credit. Rounding, where a number has more than six decimals, is half-up.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext

MICRO = 1_000_000
# Far beyond any real price or limit, far inside BIGINT: sums of a million of these still fit.
LARGEST = 1_000_000_000_000 * MICRO


class NotAnAmountError(ValueError):
    """Not a number, negative, or beyond what an amount can be; the message says which."""


def from_decimal(value: Decimal) -> int:
    """Micro-credits of a decimal number of credits; raises NotAnAmountError."""
    if not value.is_finite():
        raise NotAnAmountError("credits must be a finite number")
    if value.is_signed() and value != 0:
        raise NotAnAmountError("credits must not be negative")
    if value.adjusted() > 12:
        raise NotAnAmountError("credits must be at most 1000000000000")
    with localcontext() as context:
        # More digits than any number here has: a product rounded first could be taken for a tie.
        context.prec = 500
        context.traps[InvalidOperation] = True
        micro = int((value * MICRO).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if micro > LARGEST:
        raise NotAnAmountError("credits must be at most 1000000000000")
    return micro


def from_text(text: str) -> int:
    """Micro-credits of number text such as `1.5` or `1e-3`; raises NotAnAmountError."""
    if len(text) > 400:
        raise NotAnAmountError("credits must be a number")
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise NotAnAmountError("credits must be a number") from None
    return from_decimal(value)


def to_decimal(micro: int) -> Decimal:
    """The exact decimal of an amount, without trailing zeros: 1500000 → Decimal('1.5')."""
    value = Decimal(micro).scaleb(-6)
    whole = value.to_integral_value()
    return whole if value == whole else value.normalize()


def to_text(micro: int) -> str:
    """The exact decimal text of an amount: 1500000 → '1.5', 8000000 → '8'."""
    whole, rest = divmod(abs(micro), MICRO)
    sign = "-" if micro < 0 else ""
    return f"{sign}{whole}.{rest:06}".rstrip("0") if rest else f"{sign}{whole}"
