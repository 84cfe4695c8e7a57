"""The rule of a rate: so many a minute, and as many at once, in integers of microseconds. Pure.

It is the generic cell rate algorithm: the allowance fills up evenly, one each `MINUTE / per_minute`, and never holds
more than a minute's worth. All there is to remember is the moment at which it will be full again. The same rule is in
Lua in `scripts.py`; a test holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What became of one request. Times are in microseconds."""

    allowed: bool
    full_at: int  # what to remember; as before when it was refused
    remaining: int  # how many more would be allowed now
    wait: int  # until one is allowed again; 0 when one would be now
    until_full: int


def take(per_minute: int, full_at: int, now: int) -> Allowance:
    """Takes one request from the allowance, if it holds one. `full_at` 0 is an allowance nobody used yet.

    A `full_at` further ahead than a whole allowance (the limit was raised, or a clock was put back) counts as an
    allowance that is just empty, so nobody waits longer than it takes to fill.
    """
    each = -(-MINUTE // per_minute)
    whole = each * per_minute
    full_at = min(max(full_at, now), now + whole)
    missing = full_at + each - now
    if missing > whole:
        return Allowance(
            allowed=False, full_at=full_at, remaining=0, wait=missing - whole, until_full=full_at - now
        )
    return Allowance(
        allowed=True,
        full_at=full_at + each,
        remaining=(whole - missing) // each,
        wait=max(0, missing + each - whole),
        until_full=missing,
    )
