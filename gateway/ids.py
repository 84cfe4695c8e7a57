"""Identifiers made by the process, so that a write whose answer was lost can be repeated as it is."""

from __future__ import annotations

import os
import time
from datetime import datetime
from uuid import UUID


def uuid7(milliseconds: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then randomness; sorts by time of making.

    Holds and ledger entries are partitioned by it, so it must be made when the row is.
    """
    return UUID(int=_number(time.time_ns() // 1_000_000 if milliseconds is None else milliseconds))


def new_request_id() -> str:
    """For a request whose client gave it none: `req_` and the 32 digits of a UUIDv7."""
    return f"req_{_number(time.time_ns() // 1_000_000):032x}"


def _number(milliseconds: int) -> int:
    random = int.from_bytes(os.urandom(10))
    rand_a, rand_b = random >> 68, random & ((1 << 62) - 1)
    return (milliseconds << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b


def lowest_uuid7(at: datetime) -> UUID:
    """The smallest UUIDv7 of an instant: a partition's bound, or the start of a time range."""
    return UUID(int=round(at.timestamp() * 1000) << 80)
