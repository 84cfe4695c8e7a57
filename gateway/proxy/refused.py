"""What is kept of a refused request, so that its request id can be explained. Pure.

Kept are refusals on `/v1` of who presented a key, good or not. A call that was sent is in the ledger with its sends,
so its failure is not kept here. A repeat that got the answer of an earlier call is, with that call's hold: nothing
else would know its request id.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from gateway.access.authenticator import bearer_token
from gateway.access.key_format import TEAM_KEY, parse
from gateway.access.refusals import Refusal
from gateway.proxy.exchange import Exchange
from gateway.proxy.generation import Generation, size_class

PREFIX = "/v1/"
REPLAYED = "replayed"
LONGEST_MESSAGE = 600
# A client may put anything into a field, so only what looks like a name is kept.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")
# Not the apostrophe in "the gateway's".
_QUOTED = re.compile(r"(?<!\w)'([^']*)'(?!\w)")
_OURS = frozenset(
    (
        "async",
        "duration",
        "image",
        "image[]",
        "model",
        "n",
        "prompt",
        "quality",
        "resolution",
        "seconds",
        "size",
    )
)
_KEY_TEXT = re.compile(r"(pxg|pxa|sk)[_-][0-9A-Za-z_-]{8,}")


def refusal_of(exchange: Exchange, method: str, route: str, status: int, now: datetime) -> Refusal | None:
    """The refusal to keep of an answered request under `/v1`; None when there is nothing to explain by it."""
    error = exchange.refused
    if exchange.attempts or (error is None and exchange.repeated is None):
        return None
    principal, body, hold = exchange.principal, exchange.body, exchange.hold
    model = body.generation.model if body is not None else None
    named = model if model is not None and _NAME.fullmatch(model) else None
    detail: dict[str, Any] = {} if error is None else {**error.detail}
    if error is not None and (wait := error.headers.get("retry-after-ms")) is not None:
        detail["retry_after_ms"] = int(wait)
    elif error is not None and (wait := error.headers.get("retry-after")) is not None:
        detail["retry_after"] = int(wait)
    if exchange.repeated is not None:
        detail["repeats"] = exchange.repeated
    if body is not None:
        detail["asked"] = _asked(body.generation)
    key_id = principal.key_id if principal is not None else None
    if principal is None:
        key_id, problem = _presented(exchange)
        detail["key"] = problem
        if error is None or (problem != "not accepted" and error.status != 401):
            return None
    message = None
    if error is not None and exchange.repeated is None:  # what is repeated may be Pixapi's words
        message = _told(error.message, named)
    return Refusal(
        request_id=exchange.request_id,
        at=now,
        team_id=principal.team_id if principal is not None else None,
        key_id=key_id,
        route=f"{method} {route}",
        operation=exchange.operation.value if exchange.operation is not None else None,
        model=named,
        status=status,
        reason=error.reason if error is not None else REPLAYED,
        message=message,
        detail=detail,
        hold_id=hold.id if hold is not None else None,
        client=str(exchange.client) if exchange.client is not None else None,
    )


def _asked(wanted: Generation) -> dict[str, Any]:
    """What prices the call, in words of ours."""
    classes = {size_class(size) for size in wanted.sizes} - {None}
    found = {
        "images": wanted.images,
        "size_class": ", ".join(sorted(map(str, classes))) or None,
        "seconds": None if wanted.seconds is None else f"{wanted.seconds:f}",
        "input_images": wanted.input_images or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _presented(exchange: Exchange) -> tuple[str | None, str]:
    """The public id in a key that did not let the request in, and what was the matter as far as its text says."""
    values = exchange.header_values(b"authorization")
    if not values:
        return None, "missing"
    token = bearer_token(values)
    if token is None:
        return None, "several" if len(values) > 1 else "no bearer token"
    key = parse(token, TEAM_KEY)
    return (None, "malformed") if key is None else (key.public_id, "not accepted")


def _told(message: str, model: str | None) -> str:
    """Our message without what must not be kept: it may quote what the client sent."""
    message = _QUOTED.sub(
        lambda found: found[0] if found[1] == model or found[1] in _OURS else "'…'", message
    )
    message = _KEY_TEXT.sub("…", message)
    if not message.isprintable():
        message = "".join(char if char.isprintable() else " " for char in message)
    return message[:LONGEST_MESSAGE]
