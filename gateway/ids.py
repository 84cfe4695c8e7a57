"""Identifiers made by the process, so that a write whose answer was lost can be repeated as it is."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from uuid import UUID


def uuid7(milliseconds: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then randomness; sorts by time of making.

    Holds and ledger entries are partitioned by it, so it must be made when the row is.
    """
    stamp = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    tail = secrets.randbits(74)
    rand_a, rand_b = tail >> 62, tail & ((1 << 62) - 1)
    return UUID(int=(stamp << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b)


def lowest_uuid7(at: datetime) -> UUID:
    """The smallest UUIDv7 of an instant: a partition's bound, or the start of a time range."""
    return UUID(int=round(at.timestamp() * 1000) << 80)
