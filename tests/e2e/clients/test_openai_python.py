"""The official OpenAI SDK for Python, synchronous: what a team does with it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import openai

from tests.e2e.clients.conftest import Stage
from tests.e2e.harness import eventually
from tests.e2e.pictures import fetch, is_mp4, png_size

MODEL = "gemini-3-pro-image-preview"


def first_url(answer: openai.types.ImagesResponse) -> str:
    assert answer.data
    assert answer.data[0].url
    return answer.data[0].url


def image_parts(entry: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(field, file name, content type, SHA-256) of the files Pixapi got."""
    return [
        (part["name"], part["filename"], part["content_type"], part["sha256"])
        for part in entry["parts"]
        if part["filename"] is not None
    ]


def test_generate(client: openai.OpenAI) -> None:
    answer = client.images.generate(model=MODEL, prompt="A ceramic coffee cup", n=2, size="1536x1024")
    assert answer.data is not None
    assert len(answer.data) == 2
    for image in answer.data:
        assert image.url
        width, height = png_size(fetch(image.url))
        assert abs(width * 1024 - height * 1536) <= 1536  # to within a pixel


def test_generate_by_alias_as_base64(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="nano-banana", prompt="A cup", response_format="b64_json")
    assert answer.data
    assert answer.data[0].b64_json
    assert png_size(base64.b64decode(answer.data[0].b64_json)) == (256, 256)


def test_edit_with_one_image(client: openai.OpenAI, stage: Stage, photos: list[bytes]) -> None:
    prompt = "On a warm studio background"
    answer = client.images.edit(
        model=MODEL, prompt=prompt, image=("cup.png", photos[0], "image/png"), size="1024x1024"
    )
    png_size(fetch(first_url(answer)))
    (entry,) = stage.sent(prompt)
    assert image_parts(entry) == [("image", "cup.png", "image/png", hashlib.sha256(photos[0]).hexdigest())]


def test_edit_with_three_images(client: openai.OpenAI, stage: Stage, photos: list[bytes]) -> None:
    prompt = "These three side by side"
    files = [(f"{number}.png", photo, "image/png") for number, photo in enumerate(photos)]
    answer = client.images.edit(model=MODEL, prompt=prompt, image=files, n=1)
    png_size(fetch(first_url(answer)))
    (entry,) = stage.sent(prompt)
    assert image_parts(entry) == [
        ("image[]", f"{number}.png", "image/png", hashlib.sha256(photo).hexdigest())
        for number, photo in enumerate(photos)
    ]


def test_list_models(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {MODEL, "gpt-image-2", "veo"} <= set(listed)
    assert "nano-banana" not in listed
    assert listed["veo"].model_extra
    assert listed["veo"].model_extra["category"] == "video"


def test_retrieve_a_model_by_id_and_by_alias(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("nano-banana-pro").id == MODEL


def test_video_submit_and_poll(client: openai.OpenAI) -> None:
    order = {"model": "veo", "prompt": "Steam over a cup", "duration": 4, "size": "1280x720"}
    task: Any = client.post("/async/videos/generations", body=order, cast_to=object)
    assert task["status"] == "submitted"

    def ended() -> Any:
        seen: Any = client.get(f"/tasks/{task['id']}", cast_to=object)
        return seen if seen["status"] == "completed" else None

    done = eventually(ended, 15, every=0.2)
    assert done["credits_cost"] == 4
    assert is_mp4(fetch(done["result"]["data"][0]["url"]))


def test_image_submit_and_poll(client: openai.OpenAI) -> None:
    order = {"model": "nano-banana", "prompt": "A cup", "n": 2}
    task: Any = client.post("/async/images/generations", body=order, cast_to=object)

    def ended() -> Any:
        seen: Any = client.get(f"/tasks/{task['id']}", cast_to=object)
        return seen if seen["status"] == "completed" else None

    done = eventually(ended, 15, every=0.2)
    assert [png_size(fetch(image["url"])) for image in done["result"]["data"]] == [(256, 256)] * 2


def test_raw_answer_shows_the_request_id(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(model=MODEL, prompt="A cup")
    assert raw.headers["x-request-id"].startswith("req_")
    assert first_url(raw.parse()).startswith("http://127.0.0.1")
