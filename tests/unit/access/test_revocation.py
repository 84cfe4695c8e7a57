"""What an Authenticator forgets when it hears of changes, and what the metric says of it."""

from __future__ import annotations

from uuid import UUID

import pytest

from gateway.access import revocation
from gateway.access.authenticator import Authenticator
from gateway.cache.events import Event
from gateway.telemetry import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.events import FakeEvents
from tests.fakes.key_rows import PEPPERS, KeyRows
from tests.fakes.principals import TEAM_ID

BETA = UUID("018e0000-0000-7000-8000-000000000002")


class Rig:
    """Two keys of one team and one of another, all cached."""

    def __init__(self) -> None:
        self.clock, self.rows = FakeClock(), KeyRows()
        self.events, self.metrics = FakeEvents(), Metrics()
        self.authenticator = Authenticator(self.rows, PEPPERS, self.clock)
        revocation.follow(self.events, self.authenticator, self.clock, self.metrics)
        self.keys = {"first": self.rows.add(), "second": self.rows.add(), "beta": self.rows.add(BETA)}

    async def looked_up(self) -> set[str]:
        """Those that are not cached; they are afterwards."""
        found = set()
        for name, key in self.keys.items():
            asked = self.rows.asked
            await self.authenticator.authenticate([f"Bearer {key.text}".encode()])
            if self.rows.asked > asked:
                found.add(name)
        return found

    def hear(self, topic: str, ident: str, seconds_ago: float = 0.0) -> None:
        self.events.hear(Event(topic, ident, self.clock.now().timestamp() - seconds_ago))

    def lag(self, what: str) -> float:
        found = self.metrics.registry.get_sample_value(f"gateway_revocation_lag_seconds_{what}")
        assert found is not None
        return found


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    assert await rig.looked_up() == {"first", "second", "beta"}
    assert await rig.looked_up() == set()
    return rig


async def test_a_changed_key_is_forgotten_alone(rig: Rig) -> None:
    rig.hear("key", rig.keys["second"].public_id)
    assert await rig.looked_up() == {"second"}


async def test_a_changed_team_is_forgotten_alone(rig: Rig) -> None:
    rig.hear("team", str(BETA))
    assert await rig.looked_up() == {"beta"}
    rig.hear("team", str(TEAM_ID))
    assert await rig.looked_up() == {"first", "second"}


@pytest.mark.parametrize(
    ("topic", "ident"), [("key", "no key"), ("team", "no team"), ("key", ""), ("team", "")]
)
async def test_news_of_strangers_change_nothing(rig: Rig, topic: str, ident: str) -> None:
    rig.hear(topic, ident)
    assert await rig.looked_up() == set()


async def test_other_topics_are_not_listened_to(rig: Rig) -> None:
    rig.hear("upstream-key", rig.keys["first"].public_id)
    assert await rig.looked_up() == set()
    assert rig.lag("count") == 0


async def test_a_gap_ends_everything(rig: Rig) -> None:
    rig.events.gap()
    assert await rig.looked_up() == {"first", "second", "beta"}
    assert rig.lag("count") == 0


async def test_the_lag_is_measured_and_never_negative(rig: Rig) -> None:
    rig.hear("key", "x", seconds_ago=0.25)
    rig.hear("team", "x", seconds_ago=2.0)
    assert rig.lag("count") == 2
    assert rig.lag("sum") == pytest.approx(2.25, abs=1e-3)
    rig.hear("key", "x", seconds_ago=-3600)  # a sender whose clock is ahead
    assert rig.lag("count") == 3
    assert rig.lag("sum") == pytest.approx(2.25, abs=1e-3)
