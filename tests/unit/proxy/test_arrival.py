"""What becomes of an answer is asked of the server that carries it, where it can say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.types import Scope

from gateway.proxy.arrival import EXTENSION, when_arrived
from gateway.server.protocol import ARRIVAL


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"other": {}}}])
def test_a_server_that_cannot_tell_is_believed(extensions: Scope) -> None:
    told: list[bool] = []
    when_arrived({"type": "http", **extensions}, told.append)
    assert told == [True]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_server_that_can_tell_is_waited_for(arrived: bool) -> None:
    told: list[bool] = []
    watching: list[Callable[[bool], None]] = []
    when_arrived({"type": "http", "extensions": {EXTENSION: watching.append}}, told.append)
    assert told == []
    [tell] = watching
    tell(arrived)
    assert told == [arrived]


def test_server_and_application_mean_the_same_extension() -> None:
    assert EXTENSION == ARRIVAL
