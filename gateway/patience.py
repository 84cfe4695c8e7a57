"""How long one request may wait for Redis, and for Postgres, in all: however many times it asks them."""

from __future__ import annotations

from contextvars import ContextVar, Token


class Patience:
    """Seconds of waiting that are left. As a context, all that is awaited inside draws on it.

    It follows into tasks started inside, which then share it; a task that outlives its request, or works for several,
    is given one of its own by entering another in it. An inner one takes the outer one's place.
    """

    __slots__ = ("_current", "_token", "left")

    def __init__(self, current: ContextVar[Patience | None], seconds: float) -> None:
        self.left = seconds
        self._current = current
        self._token: Token[Patience | None] | None = None

    def __enter__(self) -> Patience:
        self._token = self._current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._current.reset(self._token)

    def spend(self, seconds: float) -> None:
        """Takes off what something was awaited for."""
        self.left = self.left - seconds if seconds < self.left else 0.0


class Waited:
    """What requests wait for: `with REDIS.patience():` lets the block wait `seconds` for it in all; after that it
    counts as gone."""

    def __init__(self, name: str, seconds: float) -> None:
        self.seconds = seconds
        self._current: ContextVar[Patience | None] = ContextVar(f"gateway.patience.{name}", default=None)

    def patience(self, seconds: float | None = None) -> Patience:
        return Patience(self._current, self.seconds if seconds is None else seconds)

    def current(self) -> Patience | None:
        """The patience of the running request; None outside of one."""
        return self._current.get()


REDIS = Waited("redis", 0.3)
POSTGRES = Waited("postgres", 4.5)  # whoever makes a paid call hears within five
