"""What is forgotten while it is being looked up: it neither stays nor answers whoever comes later."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from uuid import UUID

import pytest

from gateway.access.authenticator import Authenticator
from gateway.access.key_format import TEAM_KEY, ParsedKey, make
from gateway.access.principal import Principal
from gateway.db.engine import StatementRefusedError
from gateway.errors import GatewayError
from tests.fakes.clock import FakeClock
from tests.fakes.key_rows import PEPPERS, KeyRows
from tests.fakes.principals import TEAM_ID

BETA = UUID("018e0000-0000-7000-8000-000000000002")


class Rig:
    """An authenticator on rows of its own."""

    def __init__(self) -> None:
        self.rows = KeyRows()
        self.clock = FakeClock()
        self.authenticator = Authenticator(self.rows, PEPPERS, self.clock, ttl=10.0)

    async def who(self, key: ParsedKey) -> Principal:
        return await self.authenticator.authenticate([f"Bearer {key.text}".encode()])

    async def works(self, key: ParsedKey) -> bool:
        try:
            return not (await self.who(key)).team_suspended
        except GatewayError as error:
            if error.status != 401:
                raise
            return False

    async def asking(self, key: ParsedKey) -> asyncio.Task[Principal]:
        """A look-up that has asked and is waiting for its answer."""
        asked = self.rows.asked
        task = asyncio.create_task(self.who(key))
        while self.rows.asked == asked or self.rows.gates:
            await asyncio.sleep(0)
        return task


@pytest.fixture
def rig() -> Rig:
    return Rig()


FORGETS: dict[str, Callable[[Authenticator, ParsedKey], None]] = {
    "the key": lambda authenticator, key: authenticator.forget_key(key.public_id),
    "its team": lambda authenticator, key: authenticator.forget_team(str(TEAM_ID)),
    "all": lambda authenticator, key: authenticator.forget_all(),
}


@pytest.mark.parametrize("what", FORGETS)
async def test_a_look_up_that_began_before_the_revocation_serves_nobody_after_it(rig: Rig, what: str) -> None:
    key = rig.rows.add()
    gate = rig.rows.hold_up()
    early = await rig.asking(key)
    rig.rows.revoke(key)
    FORGETS[what](rig.authenticator, key)
    assert not await rig.works(key)  # came after the revocation, while the old answer is still on its way
    gate.set()
    assert (await early).key_id == key.public_id  # came before it
    assert not await rig.works(key)


@pytest.mark.parametrize("what", FORGETS)
async def test_a_late_answer_does_not_replace_a_later_one(rig: Rig, what: str) -> None:
    key = rig.rows.add()
    gates = [rig.rows.hold_up()]
    early = await rig.asking(key)
    rig.rows.change(key, key_name="renamed")
    FORGETS[what](rig.authenticator, key)
    gates.append(rig.rows.hold_up())
    late = await rig.asking(key)
    gates[1].set()
    assert (await late).key_name == "renamed"
    gates[0].set()
    assert (await early).key_name == "laptop"
    assert (await rig.who(key)).key_name == "renamed"
    assert rig.rows.asked == 2


@pytest.mark.parametrize("what", FORGETS)
async def test_what_was_cached_is_read_anew(rig: Rig, what: str) -> None:
    key = rig.rows.add()
    assert await rig.works(key)
    rig.rows.change(key, suspended_at="now")
    assert await rig.works(key)
    FORGETS[what](rig.authenticator, key)
    assert not await rig.works(key)


async def test_other_keys_and_teams_are_kept(rig: Rig) -> None:
    ours, theirs = rig.rows.add(), rig.rows.add(BETA)
    assert await rig.works(ours)
    assert await rig.works(theirs)
    rig.authenticator.forget_key(make(TEAM_KEY).public_id)
    rig.authenticator.forget_team(str(UUID(int=0)))
    assert await rig.works(ours)
    assert await rig.works(theirs)
    assert rig.rows.asked == 2
    rig.authenticator.forget_team(str(TEAM_ID))
    assert await rig.works(theirs)
    assert rig.rows.asked == 2
    assert await rig.works(ours)
    assert rig.rows.asked == 3


async def test_another_key_s_change_leaves_a_look_up_shared_and_kept(rig: Rig) -> None:
    key = rig.rows.add()
    gate = rig.rows.hold_up()
    early = await rig.asking(key)
    rig.authenticator.forget_key(make(TEAM_KEY).public_id)
    late = asyncio.create_task(rig.who(key))
    await asyncio.sleep(0)
    gate.set()
    assert await early is await late
    assert await rig.works(key)
    assert rig.rows.asked == 1


async def test_a_key_that_was_refused_works_as_soon_as_its_change_is_heard_of(rig: Rig) -> None:
    key = rig.rows.add()
    row = rig.rows.revoke(key)  # expired, say
    assert not await rig.works(key)
    rig.rows.rows[PEPPERS.sign(key.text)] = row
    assert not await rig.works(key)
    rig.authenticator.forget_key(key.public_id)
    assert await rig.works(key)


async def test_nobody_joins_a_look_up_that_takes_longer_than_a_principal_lives(rig: Rig) -> None:
    key = rig.rows.add()
    gate = rig.rows.hold_up()
    early = await rig.asking(key)
    rig.rows.revoke(key)
    rig.clock.forward(9.9)
    joined = asyncio.create_task(rig.works(key))
    await asyncio.sleep(0)
    assert not joined.done()
    rig.clock.forward(0.1)
    assert not await rig.works(key)
    gate.set()
    assert (await early).key_id == key.public_id
    assert await joined
    assert not await rig.works(key)


async def test_the_life_of_a_principal_is_counted_from_its_question(rig: Rig) -> None:
    key = rig.rows.add()
    gate = rig.rows.hold_up()
    early = await rig.asking(key)
    rig.rows.revoke(key)
    rig.clock.forward(6)
    gate.set()
    await early
    for _ in range(39):
        rig.clock.forward(0.1)
        assert await rig.works(key)
    rig.clock.forward(0.1)
    assert not await rig.works(key)


async def test_a_forgotten_look_up_ends_even_when_everyone_has_left(rig: Rig) -> None:
    key = rig.rows.add(noted_long_ago=True)
    gate = rig.rows.hold_up()
    early = await rig.asking(key)
    rig.authenticator.forget_all()
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    del early
    gc.collect()
    gate.set()
    while rig.rows.noted == 0:
        await asyncio.sleep(0)


async def test_a_failed_look_up_is_not_remembered(rig: Rig) -> None:
    key = rig.rows.add()
    rig.rows.down = True
    with pytest.raises(GatewayError) as caught:
        await rig.who(key)
    assert caught.value.status == 503
    rig.rows.down = False
    assert await rig.works(key)


async def test_keys_looked_up_in_one_turn_share_a_question_and_each_gets_its_own_answer(rig: Rig) -> None:
    keys = [rig.rows.add(noted_long_ago=True) for _ in range(20)]
    stranger = make(TEAM_KEY)
    rig.rows.revoke(keys[7])
    asked = [asyncio.create_task(rig.works(key)) for key in (*keys, stranger, keys[3])]
    assert await asyncio.gather(*asked) == [key is not keys[7] for key in keys] + [False, True]
    await rig.authenticator.noted()
    assert (rig.rows.asked, rig.rows.noted) == (1, 1)
    assert [(await rig.who(key)).key_id for key in keys[:7]] == [key.public_id for key in keys[:7]]
    assert rig.rows.asked == 1


async def test_a_question_that_hangs_holds_up_nobody_who_comes_later(rig: Rig) -> None:
    slow, quick = rig.rows.add(), rig.rows.add()
    gate = rig.rows.hold_up()
    early = await rig.asking(slow)
    assert await rig.works(quick)
    gate.set()
    assert (await early).key_id == slow.public_id


async def test_one_that_is_forgotten_before_the_question_is_asked_is_asked_about_again(rig: Rig) -> None:
    key, other = rig.rows.add(), rig.rows.add()
    early = [asyncio.create_task(rig.who(one)) for one in (key, other)]
    await asyncio.sleep(0)  # they are listed, and go when this turn is over
    rig.authenticator.forget_key(key.public_id)
    assert [(await one).key_id for one in early] == [key.public_id, other.public_id]
    asked = rig.rows.asked
    assert await rig.works(other)
    assert rig.rows.asked == asked
    assert await rig.works(key)
    assert rig.rows.asked == asked + 1


async def test_a_failed_question_fails_all_who_share_it_and_each_can_ask_again(rig: Rig) -> None:
    keys = [rig.rows.add() for _ in range(3)]
    rig.rows.down = True
    found = await asyncio.gather(*(rig.who(key) for key in keys), return_exceptions=True)
    assert [one.status for one in found if isinstance(one, GatewayError)] == [503] * 3
    rig.rows.down = False
    assert await asyncio.gather(*(rig.works(key) for key in keys)) == [True] * 3


@pytest.mark.parametrize("number", [0, 3, 6])
async def test_a_row_that_cannot_be_read_fails_its_own_key_alone(rig: Rig, number: int) -> None:
    keys = [rig.rows.add() for _ in range(7)]
    rig.rows.change(keys[number], allowed_addresses=["no address"])
    found = await asyncio.gather(*(rig.who(key) for key in keys), return_exceptions=True)
    assert [isinstance(one, ValueError) for one in found] == [key is keys[number] for key in keys]
    assert rig.rows.asked == 1
    with pytest.raises(ValueError, match="no address"):
        await rig.who(keys[number])
    rig.rows.change(keys[number], allowed_addresses=None)
    assert await rig.works(keys[number])


@pytest.mark.parametrize("broken", [{0}, {3, 4}, {6}, set(range(7))])
async def test_so_does_one_that_the_driver_cannot_read(rig: Rig, broken: set[int]) -> None:
    keys = [rig.rows.add() for _ in range(7)]
    rig.rows.broken = {keys[number].public_id for number in broken}
    found = await asyncio.gather(*(rig.who(key) for key in keys), return_exceptions=True)
    refused = [number for number, one in enumerate(found) if isinstance(one, StatementRefusedError)]
    assert set(refused) == broken
    assert sum(isinstance(one, Principal) for one in found) == len(keys) - len(broken)


async def test_uses_are_noted_together_and_keep_nobody_waiting(rig: Rig) -> None:
    for _ in range(20):
        assert await rig.works(rig.rows.add(noted_long_ago=True))
    await rig.authenticator.noted()
    assert rig.rows.asked == 20
    assert rig.rows.noted == 2  # the first at once, the others after a while


async def test_a_use_that_was_just_noted_is_not_noted_again(rig: Rig) -> None:
    assert await rig.works(rig.rows.add())
    await rig.authenticator.noted()
    assert rig.rows.noted == 0


async def test_a_use_that_cannot_be_noted_is_let_go(rig: Rig) -> None:
    rig.rows.full = True
    assert await rig.works(rig.rows.add(noted_long_ago=True))
    await rig.authenticator.noted()
    rig.rows.full = False
    assert await rig.works(rig.rows.add(noted_long_ago=True))
    await rig.authenticator.noted()
    assert rig.rows.noted == 1


@pytest.mark.parametrize("change", [str.swapcase, lambda text: text[:-1], lambda text: text + "0", str.upper])
async def test_what_is_no_key_is_refused_without_a_question(rig: Rig, change: Callable[[str], str]) -> None:
    key = rig.rows.add()
    assert await rig.works(key)
    assert await rig.authenticator.principal_of(change(key.text)) is None
    for strange in ("é", "\0", "\ud800"):
        assert await rig.authenticator.principal_of(key.text[:20] + strange + key.text[21:]) is None
    assert rig.rows.asked == 1
