"""What the worker processes of one `serve` ask each other: their page of metrics.

Each listens on a Unix socket in a folder that only their user may enter, made by their parent. Whoever connects gets
the page. Workers have fixed numbers: one that replaces another takes over its number and its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SEAT = "PIXAPI_GATEWAY_SEAT"  # set by the server in each of several worker processes
ANSWER_SECONDS = 0.5
LARGEST_PAGE = 16 * 1024 * 1024

log = logging.getLogger("gateway.siblings")


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of how many workers this process is, and where they meet."""

    number: int
    count: int
    folder: Path

    def socket(self, number: int) -> str:
        return str(self.folder / f"{number}.sock")


def seat_in(environment: Mapping[str, str]) -> Seat | None:
    """This process's seat; None when it is the only one."""
    text = environment.get(SEAT)
    if text is None:
        return None
    number, count, folder = text.split(":", 2)
    return Seat(int(number), int(count), Path(folder))


class Siblings:
    """The workers beside this one. Without a seat there are none."""

    def __init__(self, seat: Seat | None = None) -> None:
        self.seat = seat
        self._server: asyncio.AbstractServer | None = None

    async def open(self, page: Callable[[], bytes]) -> None:
        """Answers `page()` to every sibling that asks, until `close`."""
        if self.seat is None:
            return

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with contextlib.suppress(OSError):  # the sibling did not wait
                    writer.write(page())
                    await writer.drain()
            finally:
                writer.close()

        path = self.seat.socket(self.seat.number)
        try:
            _remove(path)  # a killed worker's
            self._server = await asyncio.start_unix_server(answer, path)
        except OSError as error:
            # Serving matters more; this worker is silent to the others.
            log.error("workers cannot meet", extra={"reason": error.strerror, "detail": path})

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def pages(self) -> dict[int, bytes]:
        """What the others answer within half a second, by their numbers. Who does not answer is not in it."""
        seat = self.seat
        if seat is None:
            return {}
        others = [number for number in range(seat.count) if number != seat.number]
        found = await asyncio.gather(*(_ask(seat.socket(number)) for number in others))
        return {number: page for number, page in zip(others, found, strict=True) if page is not None}


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def _ask(path: str) -> bytes | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            page = bytearray()
            while chunk := await reader.read(256 * 1024):
                page += chunk
                if len(page) > LARGEST_PAGE:
                    return None
            return bytes(page) if page.endswith(b"\n") else None
    except OSError:  # a time-out is one too
        return None
    finally:
        if writer is not None:
            writer.close()
