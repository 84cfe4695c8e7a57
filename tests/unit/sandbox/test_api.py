"""The simulated Pixapi's ordinary behaviour: shapes, keys, accounts, models, uploads."""

import asyncio
import base64
import hashlib
import re
import time
from typing import Any

import httpx
import pytest

from gateway.sandbox.app import create_app
from gateway.sandbox.options import SandboxOptions
from tests.unit.sandbox.conftest import KEY, Sandbox

SWITCH: dict[str, Any] = {"async": True}


def test_sync_generation_answers_the_openai_shape(sandbox: Sandbox) -> None:
    answer = sandbox.generate(model="nano-banana", n=2, size="1536x1024").json()
    assert set(answer) == {"created", "data"}
    assert isinstance(answer["created"], int)
    assert [set(item) for item in answer["data"]] == [{"url"}, {"url"}]
    assert sandbox.counters()["credits"] == 4
    for item in answer["data"]:
        image = httpx.get(item["url"])
        assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
        assert image.content.startswith(b"\x89PNG")


def test_b64_json_is_the_same_picture_as_the_url(sandbox: Sandbox) -> None:
    url = sandbox.generate().json()["data"][0]["url"]
    (item,) = sandbox.generate(response_format="b64_json").json()["data"]
    assert set(item) == {"b64_json"}
    assert base64.b64decode(item["b64_json"], validate=True) == httpx.get(url).content


def test_task_runs_from_submitted_to_completed(sandbox: Sandbox) -> None:
    response = sandbox.post(
        "/v1/async/videos/generations", model="kling", duration=5, prompt="[fault:duration=0.3]"
    )
    submitted = response.json()
    assert set(submitted) == {"status", "id", "progress", "created_at", "model"}
    assert (submitted["status"], submitted["progress"], submitted["model"]) == ("submitted", 0, "kling")
    assert re.fullmatch(r"task_01[0-9A-HJKMNP-TV-Z]{24}", submitted["id"])
    seen: list[tuple[str, int]] = []

    def ended(task: dict[str, Any]) -> bool:
        seen.append((task["status"], task["progress"]))
        assert ("result" in task) == (task["status"] == "completed")
        return bool(task["status"] == "completed")

    task = sandbox.until(submitted["id"], ended)
    assert list(dict.fromkeys(status for status, _ in seen)) == ["submitted", "processing", "completed"]
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)
    assert task["credits_cost"] == 11.2
    assert task["result"]["type"] == "video"
    assert task["completed"] >= task["created"]
    clip = httpx.get(task["result"]["data"][0]["url"])
    assert clip.headers["content-type"] == "video/mp4"
    assert clip.content[4:8] == b"ftyp"
    assert sandbox.counters()["credits"] == 11.2


def test_default_duration_depends_on_speed(sandbox: Sandbox) -> None:
    task_id = sandbox.submit(n=2)
    assert sandbox.read(task_id).json()["status"] == "submitted"
    assert len(sandbox.ended(task_id)["result"]["data"]) == 2


def test_tasks_belong_to_the_account(sandbox: Sandbox) -> None:
    task_id = sandbox.submit()
    assert sandbox.read(task_id, key="sk_demo_sibling").status_code == 200
    foreign = sandbox.read(task_id, key="sk_other_0123456789")
    unknown = sandbox.read("task_01AAAAAAAAAAAAAAAAAAAAAAAA")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json()


@pytest.mark.parametrize("key", ["x", "sk_", "sk_demo", "sk_demo_", "demo", "pxg_demo_x"])
def test_other_keys_are_unauthorized(sandbox: Sandbox, key: str) -> None:
    response = sandbox.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 401
    error = response.json()["error"]
    assert (error["code"], error["message"]) == ("unauthorized", "Invalid API key.")
    assert error["request_id"].startswith("req_")


def test_no_authorization_header_at_all(sandbox: Sandbox) -> None:
    assert httpx.get(f"{sandbox.url}/v1/models").status_code == 401


def test_revoked_key_is_refused_until_restored(sandbox: Sandbox) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    assert sandbox.control("keys/revoke", key=KEY)["sha256"] == digest
    assert sandbox.generate().status_code == 401
    assert sandbox.client.get("/v1/models", headers={"Authorization": "Bearer sk_demo_2"}).status_code == 200
    sandbox.control("keys/restore", sha256=digest)
    assert sandbox.generate().status_code == 200


def test_balance_is_checked_and_used_up(sandbox: Sandbox) -> None:
    sandbox.control("accounts/demo", credits=3)
    assert sandbox.generate(model="nano-banana").status_code == 200
    refused = sandbox.generate(model="nano-banana")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")
    assert sandbox.generate().status_code == 200
    assert sandbox.control("accounts/demo")["credits"] == 0
    sandbox.control("accounts/demo", credits=None)
    assert sandbox.generate(model="nano-banana").status_code == 200


def test_balance_counts_tasks_at_work(sandbox: Sandbox) -> None:
    sandbox.control("accounts/demo", credits=1)
    task_id = sandbox.submit("[fault:stuck]")
    assert sandbox.generate().status_code == 402
    sandbox.control(f"tasks/{task_id}/end")
    assert sandbox.control("accounts/demo")["credits"] == 0


def test_models_list_has_canonical_ids_and_obeys_the_account(sandbox: Sandbox) -> None:
    listed = sandbox.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert len(listed["data"]) == 9
    for model in listed["data"]:
        assert set(model) == {"id", "object", "category", "capabilities"}
        assert not model["id"].startswith("nano-banana")
    sandbox.control("accounts/demo", models=["nano-banana"])
    assert [m["id"] for m in sandbox.client.get("/v1/models").json()["data"]] == ["gemini-2.5-flash-image"]
    assert sandbox.generate(model="gpt-image-2").json()["error"]["code"] == "model_not_found"
    assert sandbox.generate(model="nano-banana").status_code == 200


def test_unknown_model(sandbox: Sandbox) -> None:
    response = sandbox.generate(model="dall-e-9")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0},
        {"n": 11},
        {"n": True},
        {"n": "2"},
        {"n": 1.5},
        {"prompt": ""},
        {"prompt": 5},
        {"prompt": "[fault:no_such_fault]"},
        {"prompt": "[fault:delay]"},
        {"prompt": "[fault:delay=soon]"},
        {"size": "large"},
        {"size": 1024},
        {"quality": "best"},
        {"response_format": "png"},
        {"model": "veo"},
        {"model": None},
        {"async": True},
    ],
)
def test_invalid_fields_get_the_numeric_shape(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    response = sandbox.post("/v1/images/generations", **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"]
    assert sandbox.counters()["executions"] == 0


@pytest.mark.parametrize("seconds", [0, -1, 61, "x", True, "NaN", [5]])
def test_invalid_durations(sandbox: Sandbox, seconds: object) -> None:
    assert sandbox.post("/v1/async/videos/generations", model="veo", duration=seconds).status_code == 400


def test_the_longer_of_duration_and_seconds_is_billed(sandbox: Sandbox) -> None:
    response = sandbox.post("/v1/async/videos/generations", model="wan", duration="3", seconds=4.5)
    assert sandbox.ended(response.json()["id"])["credits_cost"] == 9


def test_async_switches_are_refused_with_the_path_to_use(sandbox: Sandbox) -> None:
    for response in (
        sandbox.post("/v1/images/generations?async=true"),
        sandbox.post("/v1/images/generations", **SWITCH),
    ):
        assert response.status_code == 400
        assert "/v1/async/images/generations" in response.json()["error"]["message"]


def test_bodies_that_cannot_be_read(sandbox: Sandbox) -> None:
    for body in (b"", b"[]", b"{", b'{"model":"veo"} x'):
        assert sandbox.client.post("/v1/images/generations", content=body).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert sandbox.client.post("/v1/images/edits", content=b"--y", headers=broken).status_code == 400


def test_unknown_paths_are_journalled(sandbox: Sandbox) -> None:
    assert sandbox.client.get("/v1/balance").status_code == 404
    assert sandbox.client.get("/nowhere").json()["error"]["code"] == 404
    assert [entry["path"] for entry in sandbox.journal()] == ["/v1/balance"]


def test_journal_hides_the_secret_of_the_key(sandbox: Sandbox) -> None:
    sandbox.client.post(
        "/v1/images/generations?trace=1", json={"model": "veo", "prompt": "x"}, headers={"X-Seen": "yes"}
    )
    text = sandbox.client.get("/sandbox/journal").text
    assert KEY not in text
    (entry,) = sandbox.journal()
    assert entry["query"] == "trace=1"
    assert (entry["account"], entry["key_last4"]) == ("demo", KEY[-4:])
    assert entry["key_sha256"] == hashlib.sha256(KEY.encode()).hexdigest()
    assert ["x-seen", "yes"] in entry["headers"]
    assert entry["body_text"] == '{"model":"veo","prompt":"x"}'
    assert (entry["status"], entry["executed"], entry["credits"]) == (400, False, 0)


def test_counters_tell_reads_from_executions(sandbox: Sandbox) -> None:
    task_id = sandbox.submit()
    sandbox.read(task_id)
    sandbox.read(task_id)
    counter = sandbox.counters()
    assert (counter["requests"], counter["executions"], counter["reads"]) == (3, 1, 2)
    sandbox.control(f"tasks/{task_id}/end")
    assert sandbox.counters()["credits"] == 1
    assert sandbox.journal()[0]["credits"] == 1
    assert sandbox.journal()[0]["task_id"] == task_id


def test_public_shape_of_the_state(sandbox: Sandbox) -> None:
    sandbox.submit()
    state = sandbox.client.get("/sandbox/state").json()
    assert set(state) == {
        "accounts",
        "tasks",
        "faults",
        "revoked",
        "requests",
        "executing",
        "most_executing",
    }
    assert [account["name"] for account in state["accounts"]] == ["demo"]
    assert len(state["tasks"]) == 1


def test_a_client_that_leaves_early_is_billed(sandbox: Sandbox) -> None:
    body = {"model": "gpt-image-1.5", "prompt": "[fault:delay=0.3]"}
    with pytest.raises(httpx.ReadTimeout):
        sandbox.client.post("/v1/images/generations", json=body, timeout=0.1)
    deadline = time.monotonic() + 5
    while sandbox.counters()["credits"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_public_url_is_put_before_files() -> None:
    options = SandboxOptions(sync_seconds=0, public_url="https://files.example/")
    transport = httpx.ASGITransport(create_app(options))
    body = {"model": "gpt-image-1.5", "prompt": "x"}

    async def ask() -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sandbox", headers=headers
        ) as client:
            return await client.post("/v1/images/generations", json=body)

    assert asyncio.run(ask()).json()["data"][0]["url"].startswith("https://files.example/files/")


@pytest.mark.parametrize(
    "options", [{"speed": 0}, {"speed": -1}, {"speed": float("inf")}, {"sync_seconds": -1}]
)
def test_options_refuse_impossible_numbers(options: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SandboxOptions(**options)  # type: ignore[arg-type]
