"""Fixtures every suite may use: real servers once a session, a migrated database of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import hypothesis
import pytest

from gateway.db import migrate
from tests.servers import create_database, database_servers, drop_database

_numbers = itertools.count(1)

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The short run of `.ci/run`; `make test` leaves nothing out."""
    if "PXG_SHORT" not in os.environ:
        return
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.skip(reason="left out of the short run: make test"))


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[str, str]]:
    """(admin database URL, Redis URL) of this test process."""
    with database_servers() as found:
        yield found


@pytest.fixture(scope="session")
def redis_url(servers: tuple[str, str]) -> str:
    return servers[1]


@pytest.fixture(scope="session")
def migrated_template(servers: tuple[str, str]) -> str:
    """The name of a database that was migrated once and is copied for each test."""
    name = f"template_{os.getpid()}"
    migrate.upgrade(create_database(servers[0], name))
    return name


@pytest.fixture
def database_url(servers: tuple[str, str], migrated_template: str) -> Iterator[str]:
    """A fresh migrated database of this test alone."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield create_database(servers[0], name, template=migrated_template)
    drop_database(servers[0], name)


@pytest.fixture(scope="module")
def module_database_url(servers: tuple[str, str], migrated_template: str) -> Iterator[str]:
    """A fresh migrated database that the tests of one module share."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield create_database(servers[0], name, template=migrated_template)
    drop_database(servers[0], name)


@pytest.fixture
def empty_database_url(servers: tuple[str, str]) -> Iterator[str]:
    """A fresh database that was never migrated."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield create_database(servers[0], name)
    drop_database(servers[0], name)
