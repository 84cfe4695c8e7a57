"""When Redis is left alone: after failures in a row, for a while, then until one probe succeeds. Pure."""

from __future__ import annotations


class Breaker:
    """`failures` in a row open it for `seconds`; then one probe at a time decides. `now` is monotonic seconds."""

    def __init__(self, failures: int, seconds: float) -> None:
        self._limit = failures
        self._seconds = seconds
        self._in_a_row = 0
        self._left_alone_until = 0.0
        self._probing = False
        self.is_open = False
        """Whether Redis is left alone: nothing but a probe may ask it."""

    def succeeded(self) -> None:
        """A command was answered in time. While open this says nothing: only a probe closes."""
        self._in_a_row = 0

    def failed(self, now: float) -> bool:
        """A command or a connection failed; whether that has just opened the breaker."""
        if self.is_open:
            return False
        self._in_a_row += 1
        if self._in_a_row < self._limit:
            return False
        self._leave_alone(now)
        return True

    def probe_is_due(self, now: float) -> bool:
        """Whether the time is over and no probe is under way."""
        return self.is_open and not self._probing and now >= self._left_alone_until

    def begin_probe(self, now: float) -> bool:
        """Whether the caller's probe is the one that decides: it then has to tell `probed` how it went."""
        due = self.probe_is_due(now)
        self._probing = self._probing or due
        return due

    def probed(self, answered: bool, now: float) -> None:
        """How the probe went: it closes the breaker, or leaves Redis alone for another `seconds`."""
        self._probing = False
        self._in_a_row = 0
        self.is_open = False
        if not answered:
            self._leave_alone(now)

    def _leave_alone(self, now: float) -> None:
        self.is_open = True
        self._left_alone_until = now + self._seconds
