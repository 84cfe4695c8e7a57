"""What can be chosen when a sandbox is started."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How fast the sandbox works and how it names itself.

    `speed` divides every simulated duration (10 is ten times faster) and must be above zero. `sync_seconds` is
    how long a synchronous call takes at speed 1, in seconds. `public_url` is put before `/files/…` in answers;
    without it the request's Host header is used. Raises ValueError when a number makes no sense.
    """

    speed: float = 1.0
    sync_seconds: float = 0.05
    public_url: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.speed < float("inf"):
            raise ValueError("speed must be a number above 0")
        if not 0 <= self.sync_seconds < float("inf"):
            raise ValueError("sync_seconds must be 0 or more")
