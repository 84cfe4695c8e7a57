"""PXG_FAULTED_CALLS (40) paid calls by the official SDK with its retries, each through something that goes wrong:
Pixapi executes none of them twice, nobody is charged twice, and an answer that exists reaches the SDK.

`make chaos` makes it a thousand.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import openai
import pytest

from gateway.sandbox.journal import JOURNAL_LENGTH
from tests.e2e.data_plane.rig import Rig, rig
from tests.e2e.harness import eventually
from tests.faults.proxy import FaultProxy

CALLS = int(os.environ.get("PXG_FAULTED_CALLS", "40"))
AT_ONCE = 60
SEED = 20252
MODEL = "gemini-2.5-flash-image"
SETTINGS = {
    "GATEWAY_UPSTREAM__SYNC_TIMEOUT": "2",
    "GATEWAY_UPSTREAM__SUBMIT_TIMEOUT": "2",
    "GATEWAY_UPSTREAM__READS_PER_SECOND": "200",
    "GATEWAY_CACHE__TASK_UNFINISHED": "0.3",
}
MARKERS = (
    "",
    "[fault:delay=1.3]",  # longer than the SDK's patience
    "[fault:reset]",
    "[fault:reset_after_execute]",
    "[fault:hang_after_execute=3]",
    "[fault:half_body]",
    "[fault:cut]",
    "[fault:executes_then_500=502]",
    "[fault:executes_then_500=504 shape=html]",
    "[fault:status=500]",
    "[fault:status=503]",
)
PATHS = ("/images/generations", "/async/images/generations")

pytestmark = pytest.mark.timeout(120 + CALLS)


@pytest.fixture
def here(database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(database_url, redis_url, SETTINGS) as made:
        made.gateway.call("PATCH", f"/teams/{made.team}", json={"requests_per_minute": 1_000_000})
        yield made


@pytest.mark.long
def test_none_is_executed_or_charged_twice(here: Rig) -> None:
    answered = asyncio.run(calls(here))
    eventually(lambda: not here.rows("SELECT id FROM holds WHERE state = 'held'"), 60, every=0.1)
    entries = here.sandbox.journal(JOURNAL_LENGTH)
    assert len(entries) < JOURNAL_LENGTH, "the sandbox has forgotten the beginning"
    executed = Counter(
        json.loads(entry["body_text"])["prompt"]
        for entry in entries
        if entry["method"] == "POST" and entry["executed"]
    )
    states = Counter(row["state"] for row in here.rows("SELECT state FROM holds"))
    print(f"{CALLS} calls: {len(executed)} executed, {len(answered)} answered, holds {dict(states)}")
    assert [prompt for prompt, times in executed.items() if times > 1] == []
    # A hold that was not given back is an execution, and the other way round.
    kept = states["settled"] + states["unknown"]
    assert kept >= len(executed)
    assert kept - len(executed) <= sum("[fault:reset]" in prompt for prompt in prompts())
    assert set(answered) <= set(executed)
    whole = {prompt for prompt in executed if "fault" not in prompt or "delay" in prompt}
    assert whole <= set(answered)  # whatever became of its connections
    proof = here.gateway.call("GET", "/ledger/verify")
    assert proof["ok"], proof


def prompts() -> list[str]:
    random = Random(SEED)
    return [f"Cup {number} {random.choice(MARKERS)}" for number in range(CALLS)]


async def calls(here: Rig) -> dict[str, Any]:
    """Makes them all, while connections are cut; what was answered, by prompt."""
    proxy, random = FaultProxy(("127.0.0.1", here.gateway.process.port)), Random(SEED)
    await proxy.listen()
    answered: dict[str, Any] = {}
    waiting = iter([(prompt, random.choice(PATHS)) for prompt in prompts()])

    async def client(sdk: openai.AsyncOpenAI) -> None:
        for prompt, path in waiting:
            body = {"model": MODEL, "prompt": prompt}
            with suppress(openai.APIError):
                answered[prompt] = await sdk.post(path, cast_to=object, body=body)

    async def cut() -> None:
        while True:
            await asyncio.sleep(random.uniform(0.3, 0.9))
            proxy.cut()

    base = f"http://127.0.0.1:{proxy.port}/v1"
    cutting = asyncio.create_task(cut())
    async with openai.AsyncOpenAI(base_url=base, api_key=here.key, timeout=1.0, max_retries=4) as sdk:
        await asyncio.gather(*(client(sdk) for _ in range(AT_ONCE)))
    cutting.cancel()
    await proxy.close()
    return answered
