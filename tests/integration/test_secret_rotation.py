"""Master keys and peppers are replaced on a real database while gateways use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import select, text

from gateway.access import admin_tokens, signatures, team_keys, teams
from gateway.access.admin_tokens import AdminTokens
from gateway.access.authenticator import Authenticator
from gateway.access.key_format import Peppers
from gateway.clock import SystemClock
from gateway.db.engine import Database
from gateway.db.paging import PageOf
from gateway.db.tables import audit_entries, upstream_keys
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.pool import sealing
from gateway.pool import upstream_keys as pool_keys
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault

OLD, NEW = "old-master-q7Zr2Lx9Wv4Tn8Kd3Hs6-0123", "new-master-m5Yb1Gc8Jf0Pa3Ue7Ri2-0123"
KEYS = 250  # three batches
PEPPER, NEXT = "old-pepper-q7Zr2Lx9Wv4Tn8Kd3Hs6-0123", "new-pepper-m5Yb1Gc8Jf0Pa3Ue7Ri2-0123"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=5)
    yield database
    await database.close()


def _silent(_looked: int, _total: int) -> None:
    pass


async def _fill(database: Database, vault: Vault, count: int) -> dict[UUID, str]:
    """Upstream keys by id: their secrets."""
    secrets = {uuid7(): f"sk_live_{number:012d}" for number in range(count)}
    rows = [
        {
            "id": ident,
            "label": f"key-{secret[-3:]}",
            "account": "company",
            "secret": vault.seal(ident, secret),
            "fingerprint": vault.fingerprint(secret),
            "last4": secret[-4:],
        }
        for ident, secret in secrets.items()
    ]
    async with database.transaction() as connection:
        await connection.execute(upstream_keys.insert(), rows)
    return secrets


async def _survey(database: Database, vault: Vault) -> sealing.Sealing:
    async with database.autocommit() as connection:
        return await sealing.survey(connection, vault)


async def test_every_key_comes_under_the_new_master_key_while_gateways_use_them(database: Database) -> None:
    secrets = await _fill(database, Vault([OLD]), KEYS)
    both = Vault([NEW, OLD])
    running, stale = Pool(database, both, SystemClock()), Pool(database, Vault([OLD]), SystemClock())
    await stale.refresh()
    done = asyncio.Event()
    reads = 0

    async def use() -> None:
        nonlocal reads
        while not done.is_set():
            for pool in (running, stale):
                await pool.refresh()
                assert {key.id: key.secret for key in pool.keys} == secrets
            reads += 1

    async def rename() -> None:
        for number in range(20):
            async with database.transaction() as connection:
                await pool_keys.update(connection, "test", "key-007", {"weight": number + 1})

    using = asyncio.create_task(use())
    steps: list[tuple[int, int]] = []
    changed, _ = await asyncio.gather(
        sealing.rotate(database, both, "cli:test", lambda looked, total: steps.append((looked, total))),
        rename(),
    )
    done.set()
    await using
    assert (changed, reads > 0) == (KEYS, True)
    assert steps[:3] == [(100, KEYS), (200, KEYS), (KEYS, KEYS)]
    assert (await _survey(database, both)).under == [KEYS, 0]
    alone = Pool(database, Vault([NEW]), SystemClock())
    await alone.refresh()
    assert {key.id: key.secret for key in alone.keys} == secrets
    async with database.autocommit() as connection:
        weight = (await pool_keys.find(connection, "key-007")).weight
    assert weight == 20, "what others changed meanwhile stays"


async def test_it_can_be_stopped_and_done_again_and_then_does_nothing(database: Database) -> None:
    await _fill(database, Vault([OLD]), KEYS)
    both = Vault([NEW, OLD])

    def stop(looked: int, _total: int) -> None:
        if looked >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await sealing.rotate(database, both, "cli:test", stop)
    assert (await _survey(database, both)).under == [200, 50]
    assert await sealing.rotate(database, both, "cli:test", _silent) == 50
    assert await sealing.rotate(database, both, "cli:test", _silent) == 0
    async with database.autocommit() as connection:
        query = select(audit_entries.c.detail).where(audit_entries.c.action == "master-key.rotate")
        details = (await connection.execute(query)).scalars().all()
    assert sorted(len(detail["labels"]) for detail in details) == [50, 100, 100]


async def test_two_at_once_seal_each_key_once(database: Database) -> None:
    await _fill(database, Vault([OLD]), KEYS)
    both = Vault([NEW, OLD])
    counts = await asyncio.gather(*[sealing.rotate(database, both, "cli:test", _silent) for _ in range(2)])
    assert sum(counts) == KEYS
    assert (await _survey(database, both)).under == [KEYS, 0]


async def test_a_key_that_nobody_can_open_is_named_and_left(database: Database) -> None:
    await _fill(database, Vault([OLD]), 2)
    lost = Vault([NEW])
    found = await _survey(database, lost)
    assert (found.under, sorted(found.closed)) == (
        [0],
        [("upstream-key", "key-000"), ("upstream-key", "key-001")],
    )
    assert await sealing.rotate(database, lost, "cli:test", _silent) == 0
    assert (await _survey(database, Vault([OLD]))).under == [2]


async def test_the_same_secret_is_found_twice_before_between_and_after(database: Database) -> None:
    (secret,) = (await _fill(database, Vault([OLD]), 1)).values()
    new = pool_keys.NewUpstreamKey(label="double", secret=secret)

    async def refused(vault: Vault) -> None:
        with pytest.raises(GatewayError, match="already stored"):
            async with database.transaction() as connection:
                await pool_keys.add(connection, "test", vault, new)

    await refused(Vault([NEW, OLD]))
    await sealing.rotate(database, Vault([NEW, OLD]), "cli:test", _silent)
    await refused(Vault([NEW, OLD]))
    await refused(Vault([NEW]))


class Rotation:
    """A team key and an admin token that the old pepper has signed, and gateways with lists of peppers."""

    def __init__(self, database: Database, key: team_keys.IssuedKey, token: str) -> None:
        self.database, self.key, self.token = database, key, token

    async def use(self, *peppers: str) -> bool:
        """Whether a gateway that was just started with these lets both in."""
        own = Peppers(peppers)
        tokens = AdminTokens(self.database, own, None)
        admin = await tokens.principal_of(self.token.encode())
        authenticator = Authenticator(self.database, own, SystemClock())
        try:
            principal = await authenticator.authenticate([b"Bearer " + self.key.secret.encode()])
        except GatewayError:
            return False
        await authenticator.noted()
        return principal.key_id == self.key.key.id and admin is not None

    async def begin(self) -> bool:
        async with self.database.transaction() as connection:
            return await signatures.begin(connection, "cli:test", Peppers([NEXT, PEPPER]))

    async def under(self) -> dict[str, int]:
        """How many keys and tokens each pepper has signed, as noted."""
        names = dict(zip(Peppers([PEPPER, NEXT]).names, ("old", "new"), strict=True))
        counts: dict[str, int] = {}
        async with self.database.autocommit() as connection:
            for one in await signatures.census(connection):
                word = "not known" if one.pepper is None else names[one.pepper]
                counts[word] = counts.get(word, 0) + one.count
        return counts


@pytest.fixture
async def rotation(database: Database) -> Rotation:
    own = Peppers([PEPPER])
    async with database.transaction() as connection:
        team = await teams.create(connection, "test", teams.NewTeam(name="Alpha", unlimited=True))
        key = await team_keys.issue(connection, "test", own, team, team_keys.NewKey(name="laptop"))
        token = await admin_tokens.issue(connection, "test", own, "me", "admin")
    return Rotation(database, key, token.secret)


async def test_keys_come_under_the_new_pepper_when_used_and_only_once_that_was_begun(
    rotation: Rotation,
) -> None:
    assert await rotation.under() == {"old": 2}
    assert await rotation.use(NEXT, PEPPER)
    assert await rotation.under() == {"old": 2}, "another gateway may not have the new pepper yet"
    assert await rotation.use(PEPPER)
    assert (await rotation.begin(), await rotation.begin()) == (True, False)
    assert await rotation.use(NEXT, PEPPER)
    assert await rotation.under() == {"new": 2}
    assert await rotation.use(NEXT), "the old one is needed no more"
    assert not await rotation.use(PEPPER)


async def test_a_key_whose_pepper_was_not_noted_is_noted_when_used(rotation: Rotation) -> None:
    async with rotation.database.transaction() as connection:
        await connection.execute(text("UPDATE team_keys SET pepper = NULL"))
    assert await rotation.under() == {"old": 1, "not known": 1}
    assert await rotation.use(PEPPER)
    assert await rotation.under() == {"old": 2}


async def test_a_key_in_use_by_others_is_let_in_and_signed_at_its_next_use(rotation: Rotation) -> None:
    await rotation.begin()
    async with rotation.database.transaction() as connection:
        await connection.execute(text("SELECT id FROM team_keys FOR KEY SHARE"))  # as a task's row takes it
        assert await asyncio.wait_for(rotation.use(NEXT, PEPPER), 1.0)
        assert await rotation.under() == {"old": 1, "new": 1}
    assert await rotation.use(NEXT, PEPPER)
    assert await rotation.under() == {"new": 2}


async def test_who_waits_is_listed_and_revoked_keys_do_not(rotation: Rotation) -> None:
    own = Peppers([NEXT, PEPPER])
    async with rotation.database.transaction() as connection:
        listed = await signatures.waiting(connection, own, 10)
        assert next((table, ident) for table, ident, _ in listed) == ("team_keys", rotation.key.key.id)
        assert len(listed) == 2
        await team_keys.revoke(connection, "test", rotation.key.key.id, SystemClock().now())
        page = await admin_tokens.page(connection, PageOf())
        await admin_tokens.revoke(connection, "test", str(page.items[0].id))
        assert await signatures.waiting(connection, own, 10) == []
        assert await signatures.census(connection) == []
