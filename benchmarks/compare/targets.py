"""What is compared: an address, how it is called, and its processes. The simple ones: the stub itself, and nginx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

DIRECT, NGINX, GATEWAY, PORTKEY, LITELLM = "direct", "nginx", "gateway", "portkey", "litellm"
NAMES = (DIRECT, NGINX, GATEWAY, PORTKEY, LITELLM)


@dataclass(slots=True, kw_only=True)
class Target:
    """Something that answers calls; `pid` is None for the stub itself."""

    name: str
    base: str
    pid: int | None = None
    token: str = "none"
    headers: Mapping[str, str] = field(default_factory=dict)
    stop: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        return int(self.base.rsplit(":", 1)[1])


class UnavailableError(Exception):
    """A target that is not installed here, or did not start; the text says which and why."""


class CannotError(Exception):
    """The target answers no call of this kind; the text says what it answers."""
