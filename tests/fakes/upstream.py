"""Pixapi without a network: what each call gets, decided by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.spool import SpoolBudget, SpooledBody
from gateway.upstream.client import Call, Reply, UpstreamClient

BUDGET = SpoolBudget(0, Path("/nonexistent"))  # small bodies stay in memory


@dataclass(frozen=True)
class Answer:
    """A complete reply."""

    status: int
    body: bytes = b""
    retry_after: float | None = None


Reaction = Answer | Exception


class FakeUpstream(UpstreamClient):
    """Answers by `react`, once `gate` is open, and remembers what it was asked."""

    def __init__(self, react: Callable[[Call], Reaction]) -> None:
        self.react = react
        self.calls: list[Call] = []
        self.bodies: list[SpooledBody] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        await self.gate.wait()
        found = self.react(call)
        if isinstance(found, Exception):
            raise found
        body = BUDGET.body()
        await body.write(found.body)
        self.bodies.append(body)
        return Reply(found.status, b"application/json", found.retry_after, body)

    @property
    def secrets(self) -> list[str]:
        """The upstream key of each call."""
        return [dict(call.headers)[b"authorization"].decode().removeprefix("Bearer ") for call in self.calls]


def in_turn(*reactions: Reaction) -> Callable[[Call], Reaction]:
    """One reaction a call; running out of them is a failure of the test."""
    left = list(reactions)
    return lambda call: left.pop(0)


def is_closed(body: SpooledBody) -> bool:
    try:
        body.read_small()
    except ValueError:
        return True
    return False
