"""What /readyz is told about the database."""

from __future__ import annotations

from pathlib import Path

from gateway import composition
from gateway.db.engine import Database
from gateway.settings import load

SETTINGS = {
    "GATEWAY_SECRETS__MASTER_KEYS": "kqWm3vT9-pZ0hXb7sLd2cYf6rNj4gAe8",
    "GATEWAY_SECRETS__KEY_PEPPER": "Vn5tQx1z_oRu8bKi3wMh7aCy0eGs4dPl",
}
CONFIG = Path(__file__).resolve().parents[2] / "config"


async def state_of(database_url: str, redis_url: str) -> dict[str, str]:
    own = SETTINGS | {"GATEWAY_DATABASE__URL": database_url, "GATEWAY_REDIS__URL": redis_url}
    built = composition.build(load(CONFIG, own))
    try:
        return await built.checks()
    finally:
        await built.database.close()
        await built.cache.close()


async def test_a_migrated_database_is_ok(database_url: str, redis_url: str) -> None:
    assert await state_of(database_url, redis_url) == {"database": "ok", "redis": "ok"}


async def test_a_database_without_a_schema_is_not_migrated(empty_database_url: str, redis_url: str) -> None:
    assert (await state_of(empty_database_url, redis_url))["database"] == "not migrated"


async def test_what_is_gone_is_unreachable(redis_url: str) -> None:
    gone = "postgresql+psycopg://nobody@/nothing?host=/nonexistent"
    assert await state_of(gone, "unix:///nonexistent") == {
        "database": "unreachable",
        "redis": "unreachable",
    }


async def test_a_migration_under_a_running_gateway_breaks_no_statement(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    try:
        for change in ("", "ALTER TABLE teams ADD COLUMN added integer", ""):
            for _ in range(8):
                async with database.autocommit() as connection:
                    if change:
                        await connection.exec_driver_sql(change)
                        break
                    await connection.exec_driver_sql("SELECT * FROM teams")
    finally:
        await database.close()
