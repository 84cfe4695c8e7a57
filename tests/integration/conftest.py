"""A connected database of one test module, and what a paid call needs to be stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.flaky_database import FlakyDatabase


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[FlakyDatabase]:
    """Patient enough for many callers on a slow machine. The tests of one module share what is stored."""
    database = FlakyDatabase(module_database_url, pool_wait=20.0, statement_timeout=20.0, lock_timeout=20.0)
    yield database
    await database.close()
