"""Token → principal on a real Postgres: cached for a fixed time, read once for all who ask, 503 without a database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.access import team_keys, teams
from gateway.access.authenticator import Authenticator
from gateway.access.key_format import ADMIN_TOKEN, TEAM_KEY, Peppers, make
from gateway.errors import GatewayError
from tests.fakes.clock import FakeClock
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.stored import ACTOR, PEPPERS, Caller, caller


class Rig:
    """An authenticator with a clock of its own and one team's key."""

    def __init__(self, database: FlakyDatabase, team: Caller) -> None:
        self.database = database
        self.team = team
        self.clock = FakeClock()
        self.authenticator = Authenticator(database, PEPPERS, self.clock, ttl=10.0)

    async def who(self, secret: str | None = None) -> Any:
        header = f"Bearer {secret or self.team.secret}".encode()
        return await self.authenticator.authenticate([header])

    async def refused(self, secret: str | None = None) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.who(secret)
        return caught.value

    async def revoke(self) -> None:
        async with self.database.transaction() as connection:
            await team_keys.revoke(connection, ACTOR, self.team.key_id, datetime.now(UTC))


@pytest.fixture
async def rig(database: FlakyDatabase) -> Rig:
    return Rig(database, await caller(database))


async def test_a_key_is_its_team_s(rig: Rig) -> None:
    found = await rig.who()
    assert (found.team_id, found.key_id, found.key_name) == (rig.team.team_id, rig.team.key_id, "laptop")
    assert (found.team_suspended, found.time_zone, found.expires_at) == (False, "UTC", None)
    assert (found.allowed_addresses, found.team_models, found.key_models) == (None, None, None)
    assert rig.team.secret not in repr(found)


async def test_a_key_s_restrictions_come_with_it(database: FlakyDatabase) -> None:
    restricted = await caller(
        database,
        allowed_models=("veo", "wan"),
        allowed_addresses=("10.0.0.0/8", "2001:db8::1"),
        requests_per_minute=60,
        max_in_flight=2,
    )
    found = await Rig(database, restricted).who()
    assert found.key_models == {"veo", "wan"}
    assert found.allowed_addresses == (ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128"))
    assert (found.key_limits.requests_per_minute, found.key_limits.max_in_flight) == (60, 2)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Basic {key}"],
        [b"{key}"],
        [b"Bearer {key} x"],
        [b"Bearer {key}0"],
        [b"Bearer\xff {key}"],
        [b"Bearer {key}\xff"],
        [b"Bearer {key}", b"Bearer {key}"],
        [b"Bearer {admin}"],
        [b"Bearer {unknown}"],
    ],
)
async def test_anything_but_one_good_key_is_401_in_one_wording(rig: Rig, headers: list[bytes]) -> None:
    values = {
        b"{key}": rig.team.secret.encode(),
        b"{admin}": make(ADMIN_TOKEN).text.encode(),
        b"{unknown}": make(TEAM_KEY).text.encode(),
    }
    for name, value in values.items():
        headers = [header.replace(name, value) for header in headers]
    with pytest.raises(GatewayError) as caught:
        await rig.authenticator.authenticate(headers)
    assert (caught.value.status, caught.value.reason) == (401, "invalid_key")
    assert caught.value.message == (await rig.refused(make(TEAM_KEY).text)).message


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER", b"Bearer "])
async def test_the_scheme_is_any_case(rig: Rig, scheme: bytes) -> None:
    found = await rig.authenticator.authenticate([scheme + b" " + rig.team.secret.encode()])
    assert found.key_id == rig.team.key_id


async def test_what_is_malformed_never_reaches_the_database(rig: Rig) -> None:
    before = rig.database.asked
    await rig.refused("pxg_0123456789_not-a-key")
    await rig.refused(rig.team.secret[:-1] + ("0" if rig.team.secret[-1] != "0" else "1"))
    assert rig.database.asked == before


async def test_a_revoked_key_works_ten_seconds_more_at_most_however_often_it_is_used(rig: Rig) -> None:
    await rig.who()
    await rig.revoke()
    for _ in range(9):
        rig.clock.forward(1.0)
        await rig.who()
    rig.clock.forward(1.0)
    assert (await rig.refused()).status == 401


async def test_a_good_key_is_good_although_its_use_cannot_be_noted(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.database.transaction() as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON team_keys FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    def lines() -> list[str]:
        found = [one for one in caplog.records if one.message == "the use of a key cannot be noted"]
        return [f"{vars(one)['reason']} in {vars(one)['detail']}" for one in found]

    try:
        for _ in range(3):
            assert (await rig.who()).key_id == rig.team.key_id
            await rig.authenticator.noted()
            rig.clock.forward(11)
        assert lines() == ["no room in team_keys"]
        rig.clock.forward(60)
        await rig.who()
        await rig.authenticator.noted()
        assert len(lines()) == 2
    finally:
        async with rig.database.transaction() as connection:
            await connection.exec_driver_sql("DROP FUNCTION refuse() CASCADE")


async def test_a_use_is_written_down_soon(rig: Rig) -> None:
    async def last_used() -> datetime | None:
        async with rig.database.autocommit() as connection:
            return (await team_keys.find(connection, rig.team.key_id)).last_used_at

    assert await last_used() is None
    await rig.who()
    await rig.authenticator.noted()
    first = await last_used()
    assert first is not None
    rig.clock.forward(11)
    await rig.who()
    await rig.authenticator.noted()
    assert await last_used() == first, "once a minute is enough"


async def test_who_holds_a_key_s_row_keeps_nobody_waiting(rig: Rig) -> None:
    async with rig.database.transaction() as connection:
        await connection.exec_driver_sql("SELECT 1 FROM team_keys FOR UPDATE")
        async with asyncio.timeout(0.8):  # the time-out for locks is a second
            await rig.who()


async def test_forgetting_ends_it_at_once(rig: Rig) -> None:
    await rig.who()
    await rig.revoke()
    rig.authenticator.forget_key("0123456789")
    await rig.who()
    rig.authenticator.forget_key(rig.team.key_id)
    assert (await rig.refused()).status == 401


async def test_forgetting_a_team_reads_it_anew(rig: Rig) -> None:
    assert not (await rig.who()).team_suspended
    async with rig.database.transaction() as connection:
        await teams.suspend(connection, ACTOR, str(rig.team.team_id))
    stranger = await caller(rig.database)
    rig.authenticator.forget_team(str(stranger.team_id))
    assert not (await rig.who()).team_suspended
    rig.authenticator.forget_team(str(rig.team.team_id))
    assert (await rig.who()).team_suspended


async def test_an_expiry_moved_into_the_future_counts_as_soon_as_the_key_is_forgotten(
    database: FlakyDatabase,
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    rig = Rig(database, await caller(database, expires_at=past))
    assert (await rig.refused()).status == 401
    async with database.transaction() as connection:
        await team_keys.update(connection, ACTOR, rig.team.key_id, {"expires_at": None})
    assert (await rig.refused()).status == 401
    rig.authenticator.forget_key(rig.team.key_id)
    assert (await rig.who()).key_id == rig.team.key_id


async def test_an_unknown_key_is_remembered_as_such(rig: Rig) -> None:
    secret = make(TEAM_KEY).text
    await rig.refused(secret)
    before = rig.database.asked
    await rig.refused(secret)
    assert rig.database.asked == before
    rig.clock.forward(10)
    await rig.refused(secret)
    assert rig.database.asked == before + 1


async def test_an_expiry_is_exact_between_reads_too(database: FlakyDatabase) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    rig = Rig(database, await caller(database, expires_at=soon))
    rig.clock.passed = (soon - rig.clock.now()).total_seconds() - 1
    await rig.who()
    rig.clock.forward(1)
    assert (await rig.refused()).status == 401


async def test_the_database_s_clock_ends_a_key_too(database: FlakyDatabase) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert (await Rig(database, await caller(database, expires_at=past)).refused()).status == 401


async def test_a_key_signed_with_an_older_pepper_still_works(rig: Rig) -> None:
    rotated = Peppers(["a-newer-pepper-0123456789-0123456789", "pepper-of-the-integration-tests-0123456789"])
    rig.authenticator = Authenticator(rig.database, rotated, rig.clock)
    assert (await rig.who()).key_id == rig.team.key_id
    rig.authenticator = Authenticator(rig.database, Peppers(["another"]), rig.clock)
    assert (await rig.refused()).status == 401


async def test_look_ups_of_one_key_at_one_time_share_one_query(rig: Rig) -> None:
    await rig.who()
    await rig.authenticator.noted()
    rig.authenticator.forget_all()
    before = rig.database.asked
    found = await asyncio.gather(*(rig.who() for _ in range(50)))
    assert {one.key_id for one in found} == {rig.team.key_id}
    assert rig.database.asked == before + 1


async def test_the_first_caller_s_leaving_fails_nobody(rig: Rig) -> None:
    asking = [asyncio.create_task(rig.who()) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    assert [one.key_id for one in await asyncio.gather(*asking[1:])] == [rig.team.key_id] * 2


async def test_without_postgres_a_cached_key_works_and_any_other_is_503(rig: Rig) -> None:
    await rig.who()
    rig.database.down = True
    assert (await rig.who()).key_id == rig.team.key_id
    error = await rig.refused(make(TEAM_KEY).text)
    assert (error.status, error.type, error.retry) == (503, "dependency_unavailable", True)
    rig.clock.forward(10)
    assert (await rig.refused()).status == 503
    rig.database.down = False
    assert (await rig.who()).key_id == rig.team.key_id
