"""One gateway for the files that need no settings of their own; the others start theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.data_plane.rig import Rig, rig
from tests.servers import create_database, drop_database


@pytest.fixture(scope="session")
def shared(servers: tuple[str, str], migrated_template: str, redis_url: str) -> Iterator[Rig]:
    """A gateway with default settings. Tests find their traces by request id and leave its upstream key well."""
    name = f"data_plane_{os.getpid()}"
    url = create_database(servers[0], name, template=migrated_template)
    with rig(url, redis_url) as found:
        yield found
    drop_database(servers[0], name)
