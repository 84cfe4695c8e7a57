"""Whether an answer has arrived, as far as the server that carries it can say."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

EXTENSION = "gateway.arrival"  # where `gateway.server` leaves `watch` of its connection


def when_arrived(scope: Scope, then: Callable[[bool], None]) -> None:
    """Calls `then` once, in the background: True when the answer sent so far is at the client's machine, False when
    that is not to be expected any more.

    At once True under a server that cannot tell.
    """
    watch: Callable[[Callable[[bool], None]], None] | None = (scope.get("extensions") or {}).get(EXTENSION)
    if watch is None:
        then(True)
    else:
        watch(then)
