"""Signals that end a server."""

from __future__ import annotations

import signal

import pytest

from gateway.server.signals import ENDING, handled


@pytest.mark.parametrize(("before", "hears"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_what_nohup_starts_does_not_hear_of_the_terminal(before: signal.Handlers, hears: bool) -> None:
    told: list[int] = []
    old = signal.signal(signal.SIGHUP, before)
    try:
        with handled(ENDING, lambda number, _: told.append(number)):
            signal.raise_signal(signal.SIGTERM)
            if hears:
                signal.raise_signal(signal.SIGHUP)
            else:
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert told == [signal.SIGTERM, signal.SIGHUP][: 1 + hears]
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, old)
