"""What is changed in one process is forgotten by all: principals follow the events of keys and teams.

With Redis that takes as long as a message does, which a metric shows. Without it, events are lost, and the fixed life
of a principal is the bound, which is shorter then. An event says what to forget and gives no right, so a forged one
costs a look-up.
"""

from __future__ import annotations

from gateway.access.authenticator import Authenticator
from gateway.cache.events import Event, Events
from gateway.clock import Clock
from gateway.telemetry import Metrics


def follow(events: Events, authenticator: Authenticator, clock: Clock, metrics: Metrics) -> None:
    """From now on a change of a key or team heard of ends its cached principals, and a gap ends all of them."""

    def key_changed(event: Event) -> None:
        authenticator.forget_key(event.ident)
        note_lag(event)

    def team_changed(event: Event) -> None:
        authenticator.forget_team(event.ident)
        note_lag(event)

    def note_lag(event: Event) -> None:
        # The sender's clock may be ahead of ours.
        metrics.revocation_lag.observe(max(0.0, clock.now().timestamp() - event.sent_at))

    events.listen("key", key_changed)
    events.listen("team", team_changed)
    events.on_gap(authenticator.forget_all)
