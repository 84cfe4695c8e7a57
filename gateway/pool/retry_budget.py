"""How many reads may be repeated: one in ten, whatever happens, so that trouble is not doubled. Pure."""

from __future__ import annotations

SHARE = 0.1
MOST = 10.0


class RetryBudget:
    """Every read puts a share into it, every repeat takes one out; it begins with one."""

    def __init__(self, share: float = SHARE, most: float = MOST) -> None:
        self._share = share
        self._most = most
        self._left = 1.0

    def made(self) -> None:
        """A read was made for the first time."""
        self._left = min(self._most, self._left + self._share)

    def take(self) -> bool:
        """Whether a read may be repeated."""
        if self._left < 1.0 - 1e-9:
            return False
        self._left -= 1.0
        return True
