"""A drain behind a load balancer: not ready at once, paid calls taken until the balancer has noticed, then refused."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e import harness
from tests.e2e.data_plane.rig import SYNC, Rig, caller, error_of, order
from tests.e2e.harness import eventually

NOTICED = 2.0


def test_paid_calls_are_taken_until_the_balancer_has_noticed(shared: Rig) -> None:
    settings = {"GATEWAY_SERVER__DRAIN_MIN_SECONDS": str(NOTICED), "GATEWAY_SERVER__DRAIN_SECONDS": "20"}
    with (
        harness.beside(shared.gateway.environment | settings) as ending,
        caller(ending.base, shared.key) as client,
        ThreadPoolExecutor(1) as threads,
    ):

        def refused() -> httpx.Response | None:
            answer = client.post(SYNC, json=order())
            return None if answer.status_code == 200 else answer

        assert refused() is None
        began = time.monotonic()
        ending.child.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["checks"]["process"] == "draining"
        assert time.monotonic() - began < NOTICED
        taken = threads.submit(client.post, SYNC, json=order("[fault:delay=5]"))
        error_of(eventually(refused), 503, "overloaded", "overloaded")
        assert time.monotonic() - began >= NOTICED
        assert taken.result().status_code == 200
        assert ending.child.wait(20) == 0
