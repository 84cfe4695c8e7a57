"""How long one request may wait for Redis in all, however many commands it awaits."""

from __future__ import annotations

from contextvars import ContextVar, Token

REQUEST_SECONDS = 0.3

_current: ContextVar[Patience | None] = ContextVar("gateway.cache.patience", default=None)


class Patience:
    """Seconds of waiting that are left. As a context, all commands awaited inside draw on it.

    It follows into tasks started inside, which then share it; a task that outlives its request, or works for several,
    is given one of its own by entering another `patience` in it. An inner one takes the outer one's place.
    """

    __slots__ = ("_token", "left")

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._token: Token[Patience | None] | None = None

    def __enter__(self) -> Patience:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)

    def spend(self, seconds: float) -> None:
        """Takes off what a command was awaited for."""
        self.left = max(0.0, self.left - seconds)


def patience(seconds: float = REQUEST_SECONDS) -> Patience:
    """`with patience(0.3):` lets the block wait that long for Redis in all; after that, Redis is gone for it."""
    return Patience(seconds)


def current() -> Patience | None:
    """The patience of the running request; None outside of one, where only the operation's time-out counts."""
    return _current.get()
