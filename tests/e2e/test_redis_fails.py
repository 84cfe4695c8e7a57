"""Redis breaks under a served gateway: credits stay exact, polls and paid calls go on, and it mends by itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from tests.e2e.data_plane.rig import SYNC, Rig, order, rig
from tests.e2e.harness import eventually
from tests.e2e.test_quota_races import MICRO, Pair, pair_on
from tests.faults.proxy import ProxyThread, proxy_thread
from tests.faults.valkey import OwnValkey, own_valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnValkey]:
    with own_valkey() as server:
        yield server


@pytest.fixture
def slow(valkey: OwnValkey) -> Iterator[ProxyThread]:
    with proxy_thread(("127.0.0.1", valkey.port)) as found:
        yield found


def metric(here: Rig, name: str) -> float:
    text = here.gateway.admin.get("/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@contextlib.contextmanager
def again_and_again(action: Callable[[], None], every: float) -> Iterator[None]:
    """Does it in the background until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def flood_for_ten(pair: Pair, breaking: Callable[[], None], every: float) -> None:
    team, key = pair.team(20)
    pair.gateway.call("PATCH", f"/keys/{key.split('_')[1]}", json={"requests_per_minute": 100_000})
    before = pair.executions()
    with again_and_again(breaking, every):
        answers = pair.flood(key, 300)
    assert Counter(answer.status for answer in answers) == {200: 10, 402: 290}
    assert pair.executions() - before == 10
    assert pair.counter(team) == (20 * MICRO, 0)


@pytest.mark.long
def test_credits_are_exact_while_redis_is_flushed_and_killed(database_url: str, valkey: OwnValkey) -> None:
    with pair_on(database_url, valkey.url) as pair:

        def flush() -> None:
            with contextlib.suppress(redis.RedisError):
                redis.Redis.from_url(valkey.url).flushall()

        def restart() -> None:
            valkey.kill()
            valkey.start()

        flood_for_ten(pair, flush, 0.01)
        flood_for_ten(pair, restart, 0.05)
        assert pair.gateway.call("GET", "/ledger/verify")["ok"]


@pytest.mark.long
def test_slow_redis_slows_nobody_for_long(database_url: str, valkey: OwnValkey, slow: ProxyThread) -> None:
    settings = {"GATEWAY_REDIS__BREAKER_SECONDS": "2"}
    with rig(database_url, f"redis://127.0.0.1:{slow.port}", settings, "--speed", "0.1") as here:
        here.gateway.call("PATCH", f"/teams/{here.team}", json={"requests_per_minute": 100_000})
        task = here.submit()
        eventually(lambda: here.client.get(f"/v1/tasks/{task}").status_code == 200)

        def poll(_: int) -> float:
            began = time.monotonic()
            assert here.client.get(f"/v1/tasks/{task}").status_code == 200
            return time.monotonic() - began

        slow.delay(5.0)
        eventually(lambda: poll(0) and metric(here, "gateway_redis_open") == 1)
        with ThreadPoolExecutor(8) as threads:
            times = sorted(threads.map(poll, range(200)))
        assert times[int(len(times) * 0.99)] < 0.3
        began = time.monotonic()
        assert here.client.post(SYNC, json=order()).status_code == 200
        assert time.monotonic() - began < 1
        assert metric(here, "gateway_limits_local_total") > 0
        slow.delay(0.0)
        eventually(lambda: poll(0) and metric(here, "gateway_redis_open") == 0, 10)


@pytest.mark.long
def test_a_replica_that_takes_no_writes_is_lived_with(database_url: str, valkey: OwnValkey) -> None:
    with (
        own_valkey("--replicaof", "127.0.0.1", str(valkey.port)) as replica,
        rig(database_url, replica.url) as here,
    ):
        here.gateway.call("PATCH", f"/teams/{here.team}", json={"requests_per_minute": 100_000})
        task = here.submit()
        answers = [here.client.get(f"/v1/tasks/{task}") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert here.client.post(SYNC, json=order()).status_code == 200
        ready = httpx.get(f"{here.gateway.base}/readyz", trust_env=False)
        assert ready.status_code == 200
        redis.Redis.from_url(replica.url).replicaof("NO", "ONE")
        eventually(lambda: here.client.get(f"/v1/tasks/{task}").json()["status"] == "completed", every=0.3)
        assert redis.Redis.from_url(replica.url).keys("pxg:task:*")
