"""Two gateways that files share whose tests do not disturb each other; the others start their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.e2e.data_plane.pool import Pool
from tests.e2e.data_plane.rig import Rig, rig
from tests.servers import create_database, drop_database


@pytest.fixture(scope="session")
def shared(servers: tuple[str, str], migrated_template: str, redis_url: str) -> Iterator[Rig]:
    """A gateway with default settings. Tests find their traces by request id and leave its upstream key well."""
    with _database(servers[0], migrated_template, "shared") as url, rig(url, redis_url) as found:
        yield found


@pytest.fixture(scope="session")
def impatient(servers: tuple[str, str], migrated_template: str, redis_url: str) -> Iterator[Rig]:
    """A gateway that waits for Pixapi no longer than a test can, and asks for a running task at every poll."""
    settings = {
        "GATEWAY_UPSTREAM__SYNC_TIMEOUT": "2",
        "GATEWAY_UPSTREAM__SUBMIT_TIMEOUT": "2",
        "GATEWAY_UPSTREAM__READ_TIMEOUT": "1",
        "GATEWAY_CACHE__TASK_UNFINISHED": "0.05",
    }
    with _database(servers[0], migrated_template, "impatient") as url, rig(url, redis_url, settings) as found:
        yield found


@pytest.fixture
def pool(impatient: Rig) -> Iterator[Pool]:
    """The impatient gateway's pool, empty at first: its own key is off meanwhile."""
    impatient.gateway.call("POST", "/upstream-keys/first/disable")
    yield Pool(impatient)
    impatient.sandbox.disarm()
    for key in impatient.gateway.call("GET", "/upstream-keys")["data"]:
        if key["label"] != "first":
            impatient.gateway.call("DELETE", f"/upstream-keys/{key['id']}?force=true")
    impatient.gateway.call("POST", "/upstream-keys/first/enable")


@contextlib.contextmanager
def _database(admin_url: str, template: str, name: str) -> Iterator[str]:
    name = f"{name}_{os.getpid()}"
    yield create_database(admin_url, name, template=template)
    drop_database(admin_url, name)
