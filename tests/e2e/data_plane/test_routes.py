"""Every /v1 route and its shape, and what happens beside the routes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e.data_plane.rig import (
    ASYNC,
    ASYNC_EDITS,
    EDITS,
    MICRO,
    MODEL,
    PAID,
    SYNC,
    VIDEOS,
    Rig,
    error_of,
    order,
)
from tests.e2e.data_plane.wire import Wire, head

PICTURE = "https://example.com/cup.png"
TASK_ID = re.compile(r"task_[0-9A-Z]{26}")


@pytest.mark.parametrize(
    ("path", "body", "quote"),
    [
        (SYNC, order(), 2),
        (SYNC, order(n=3, size="1024x1024", quality="high", response_format="url"), 6),
        (SYNC, order() | {"model": "nano-banana"}, 2),
        (SYNC, order(size="2K") | {"model": "nano-banana-2"}, 6),
        (SYNC, order(image_size="4k", size="512x512") | {"model": "nano-banana-pro"}, 16),
        (EDITS, order(image=PICTURE), 2),
        (EDITS, order(image=[PICTURE, PICTURE], n=2), 4),
    ],
)
def test_a_synchronous_call_answers_with_its_images(
    shared: Rig, path: str, body: dict[str, Any], quote: int
) -> None:
    answer = shared.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert set(document) == {"created", "data"}
    assert len(document["data"]) == body.get("n", 1)
    assert all(item["url"].startswith("http://") for item in document["data"])
    [entry] = shared.sent(answer)
    assert (entry["method"], entry["path"], entry["query"], entry["status"]) == ("POST", path, "", 200)
    hold = shared.held(answer)
    assert (hold.state, hold.quote, hold.settled) == ("settled", quote * MICRO, quote * MICRO)
    assert hold.estimated
    assert hold.operation == path.removeprefix("/v1/").replace("/", ".")


@pytest.mark.parametrize(
    ("path", "body", "quote"),
    [
        (ASYNC, order(), 2),
        (ASYNC_EDITS, order(image=PICTURE), 2),
        (VIDEOS, {"model": "kling", "prompt": "A wave", "duration": 5, "size": "1280x720"}, 22.4),
        (VIDEOS, {"model": "veo", "prompt": "A wave", "seconds": "4", "input_image": PICTURE}, 8),
    ],
)
def test_an_asynchronous_call_answers_with_its_task(
    shared: Rig, path: str, body: dict[str, Any], quote: float
) -> None:
    answer = shared.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert set(document) == {"status", "id", "progress", "created_at", "model"}
    assert (document["status"], document["progress"], document["model"]) == ("submitted", 0, body["model"])
    assert TASK_ID.fullmatch(document["id"])
    hold = shared.held(answer)
    assert (hold.state, hold.quote, hold.task_id) == ("held", round(quote * MICRO), document["id"])
    poll = shared.client.get(f"/v1/tasks/{document['id']}")
    assert poll.status_code == 200
    assert poll.headers["content-type"] == "application/json"
    assert {"id", "status", "model", "progress"} <= set(poll.json())
    assert poll.json()["id"] == document["id"]


@pytest.mark.parametrize("megabytes", [0.01, 3])
def test_a_successful_body_is_passed_on_byte_for_byte(shared: Rig, megabytes: float) -> None:
    answer = shared.client.post(SYNC, json=order(f"[fault:big={megabytes}]", response_format="b64_json"))
    start = re.match(rb'\{"created":\d+,"data":\[\{"b64_json":"', answer.content)
    assert start is not None
    assert answer.content == start[0] + b"A" * int(megabytes * 1_000_000) + b'"}]}'
    assert answer.headers["content-length"] == str(len(answer.content))


def test_models_have_the_shape_of_the_reference(shared: Rig) -> None:
    answer = shared.client.get("/v1/models")
    document = answer.json()
    assert (answer.status_code, document["object"]) == (200, "list")
    for model in document["data"]:
        assert set(model) == {"id", "object", "category", "capabilities"}
    one = shared.client.get(f"/v1/models/{MODEL}")
    assert one.json() == next(model for model in document["data"] if model["id"] == MODEL)


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", "task", "/healthz", "/readyz"])
def test_head_answers_like_get_without_a_body(shared: Rig, path: str) -> None:
    if path == "task":
        path = f"/v1/tasks/{shared.submit('[fault:stuck]')}"
    shared.client.get(path)
    got = shared.client.get(path)
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head(f"HEAD {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {shared.key}"))
        answer = wire.answer(to_head=True)
        assert answer.status_code == got.status_code == 200
        for name in ("content-type", "content-length"):
            assert answer.headers[name] == got.headers[name]
        # What comes next is the next answer, not a body.
        wire.send(head("GET /healthz HTTP/1.1", "Host: gateway"))
        assert wire.answer().json() == {"status": "ok"}


def test_head_of_what_is_not_there_has_the_error_s_head(shared: Rig) -> None:
    for path in ("/v1/tasks/task_unknown", "/v1/models/unknown", "/v1/nothing"):
        answer = shared.client.head(path)
        assert (answer.status_code, answer.content) == (404, b"")
        length = int(answer.headers["content-length"])
        assert abs(length - len(shared.client.get(path).content)) == 0


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *((method, path, "POST") for path in PAID for method in ("GET", "PUT")),
        ("HEAD", SYNC, "POST"),
        ("DELETE", "/v1/tasks/task_1", "GET, HEAD"),
        ("POST", "/v1/tasks/task_1", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PATCH", "/v1/models/veo", "GET, HEAD"),
        ("OPTIONS", SYNC, "POST"),
        ("TRACE", "/v1/models", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_those_that_work(
    shared: Rig, method: str, path: str, allow: str
) -> None:
    answer = shared.client.request(method, path, headers={"origin": "https://example.com"})
    assert answer.headers["allow"] == allow
    assert "access-control-allow-origin" not in answer.headers
    if method == "HEAD":
        assert (answer.status_code, answer.content) == (405, b"")
    else:
        error_of(answer, 405, "method_not_allowed", "method_not_allowed")
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1//models",
        "/v1/./models",
        "/v1/x/../models",
        "/v1/models/",
        "/v1/tasks/",
        "/V1/models",
        "/v1/MODELS",
        "/v1/models;a=1",
        "/v1%2fmodels",
        "/v1/models%2f",
        "/v1/%6dodels",
        "/v1%5cmodels",
        "/v1\\models",
        "/v1/models%00",
        "/v1/%252e/models",
        "/v1/models/veo/x",
        "/v1",
        "/v1/",
        "/v1/images",
        "/v1/images/variations",
        "/v1/chat/completions",
        "/v1/videos/generations",
        "/v1/async/tasks/x",
        "/v2/models",
        "/sandbox/state",
        "/",
    ],
)
def test_every_other_spelling_is_not_found(shared: Rig, path: str) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head(f"GET {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {shared.key}"))
        answer = wire.answer()
    error_of(answer, 404, "not_found_error")
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "path", ["/v1/images/generations/", "//v1/images/generations", "/v1/images/Generations"]
)
def test_a_misspelt_paid_path_costs_nothing(shared: Rig, path: str) -> None:
    with Wire(shared.gateway.process.port) as wire:
        fields = [
            f"Authorization: Bearer {shared.key}",
            "Content-Type: application/json",
            "Content-Length: 46",
        ]
        wire.send(head(f"POST {path} HTTP/1.1", "Host: gateway", *fields))
        wire.send(b'{"model":"gemini-2.5-flash-image","prompt":""}')
        answer = wire.answer()
    error_of(answer, 404, "not_found_error")
    assert shared.untouched(answer)
