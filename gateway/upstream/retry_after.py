"""How long Pixapi, or something before it, asks to be left alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")


def seconds(value: str | None, now: datetime) -> float | None:
    """A Retry-After header in seconds from `now`, 0 when its date has passed; None for what is neither number nor
    date."""
    text = (value or "").strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
