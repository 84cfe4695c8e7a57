"""A book of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.ledger.book import Book


@pytest.fixture
async def book(database_url: str) -> AsyncIterator[Book]:
    opened = Book.open(database_url)
    yield opened
    await opened.close()
