"""The official OpenAI SDK for Python, asynchronous: everything at once over one client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.e2e.clients.conftest import Stage
from tests.e2e.pictures import fetch, is_mp4, png_size

MODEL = "gemini-3-pro-image-preview"


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stage.base_url, api_key=stage.key) as found:
        yield found


async def picture(answer: openai.types.ImagesResponse) -> tuple[int, int]:
    assert answer.data
    assert answer.data[0].url
    return png_size(await asyncio.to_thread(fetch, answer.data[0].url))


async def finished(client: openai.AsyncOpenAI, task_id: str) -> Any:
    async with asyncio.timeout(15):
        while True:
            seen: Any = await client.get(f"/tasks/{task_id}", cast_to=object)
            if seen["status"] in ("completed", "failed"):
                return seen
            await asyncio.sleep(0.2)


async def test_generations_at_once(client: openai.AsyncOpenAI) -> None:
    answers = await asyncio.gather(
        *(client.images.generate(model=MODEL, prompt=f"Cup {number}") for number in range(8))
    )
    urls = {answer.data[0].url for answer in answers if answer.data}
    assert len(urls) == 8
    assert await picture(answers[0]) == (256, 256)


async def test_edits(client: openai.AsyncOpenAI, stage: Stage, photos: list[bytes]) -> None:
    one, three = await asyncio.gather(
        client.images.edit(model=MODEL, prompt="One, asynchronously", image=photos[0]),
        client.images.edit(model=MODEL, prompt="Three, asynchronously", image=list(photos)),
    )
    assert await picture(one) == (256, 256)
    assert await picture(three) == (256, 256)
    for prompt, sent in (("One, asynchronously", photos[:1]), ("Three, asynchronously", photos)):
        (entry,) = stage.sent(prompt)
        digests = [part["sha256"] for part in entry["parts"] if part["filename"] is not None]
        assert digests == [hashlib.sha256(photo).hexdigest() for photo in sent]


async def test_models(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert MODEL in listed
    assert (await client.models.retrieve("nano-banana-pro")).id == MODEL


async def test_video(client: openai.AsyncOpenAI) -> None:
    order = {"model": "wan", "prompt": "Steam over a cup", "seconds": "2"}
    task: Any = await client.post("/async/videos/generations", body=order, cast_to=object)
    done = await finished(client, task["id"])
    assert (done["status"], done["credits_cost"]) == ("completed", 4)
    assert is_mp4(await asyncio.to_thread(fetch, done["result"]["data"][0]["url"]))


async def test_a_refusal_is_the_sdks_own_class(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("no-such-model")
    assert caught.value.type == "not_found_error"
