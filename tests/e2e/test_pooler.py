"""A gateway before PgBouncer in transaction mode serves paid calls, and needs few of its connections."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import harness
from tests.integration.test_pooler import CONNECT_QUERY
from tests.pooler import PROGRAM, pooler

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed: nothing proves that it works"
)
MODEL = "gemini-2.5-flash-image"
CALLS, AT_ONCE = 200, 32


def test_paid_calls_polls_and_the_proof_by_way_of_a_pooler(database_url: str, redis_url: str) -> None:
    with (
        pooler(database_url, size=20, connect_query=CONNECT_QUERY) as found,
        harness.sandbox() as sandbox,
        harness.gateway(found.url(database_url), redis_url, sandbox.base) as gateway,
    ):
        gateway.upstream_key("sk_acct_7b21e0c4d90001")
        key = gateway.key(gateway.team("Pooled")["slug"])
        most, over = 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not over.wait(0.01):
                pools = [one for one in found.show("POOLS") if str(one["database"]).startswith("test_")]
                most = max([most, *(int(str(one["sv_active"])) for one in pools)])

        def call(_: int) -> int:
            with gateway.client(key) as client:
                body = {"model": MODEL, "prompt": "a lake"}
                answer = client.post("/v1/images/generations", json=body)
                assert client.get("/gateway/account").status_code == 200
                return answer.status_code

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            statuses = list(threads.map(call, range(CALLS)))
        over.set()
        watcher.join()
        assert set(statuses) == {200}
        assert gateway.call("GET", "/ledger/verify")["ok"]
        print(f"{CALLS} calls, {AT_ONCE} at once: at most {most} connections of the pooler were in use")
        assert most <= 13  # database.pool_size and the three beside it
