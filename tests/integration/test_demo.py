"""What the quickstart stores: the one upstream key it is to use, whatever was there before."""

from __future__ import annotations

import asyncio

from sqlalchemy import select

from gateway.cli.demo import prepare_demo
from gateway.db.engine import Database
from gateway.db.tables import upstream_keys
from gateway.pool.vault import Vault
from gateway.settings import load

MASTER = "master-key-of-the-demo-tests-0123456789"


def test_a_new_key_that_ends_like_the_old_one_replaces_it(database_url: str) -> None:
    settings = load(
        None,
        {
            "GATEWAY_DATABASE__URL": database_url,
            "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
            "GATEWAY_SECRETS__MASTER_KEYS": MASTER,
            "GATEWAY_SECRETS__KEY_PEPPER": "pepper-of-the-demo-tests-0123456789",
        },
    )
    prepare_demo(settings, "pixapi", "sk_live_first_9999", None)
    first = asyncio.run(stored(database_url))
    prepare_demo(settings, "pixapi", "sk_live_first_9999", None)
    assert asyncio.run(stored(database_url)) == first == ["sk_live_first_9999"]
    prepare_demo(settings, "pixapi", "sk_live_other_9999", None)
    assert asyncio.run(stored(database_url)) == ["sk_live_other_9999"]


async def stored(url: str) -> list[str]:
    """The secrets of the pool's active keys."""
    database = Database(url)
    active = upstream_keys.c.removed_at.is_(None) & (upstream_keys.c.state == "active")
    async with database.autocommit() as connection:
        rows = (await connection.execute(select(upstream_keys).where(active))).all()
    await database.close()
    return [Vault([MASTER]).open(row.id, row.secret) for row in rows]
