"""Failures as the official SDK shows them: its own classes, our words, and no second payment by its retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.e2e.clients.conftest import UPSTREAM_SECRET, Stage

MODEL = "gemini-3-pro-image-preview"
Act = Callable[[openai.OpenAI], Any]


def generate(**fields: Any) -> Act:
    order = {"model": MODEL, "prompt": "A cup", **fields}
    return lambda client: client.images.generate(**order)


REFUSED: dict[str, tuple[Act, type[openai.APIStatusError], int, str, str]] = {
    "bad field": (generate(n=0), openai.BadRequestError, 400, "invalid_request_error", "invalid_request"),
    "no price": (
        generate(model="no-such-model"),
        openai.PermissionDeniedError,
        403,
        "permission_error",
        "model_without_price",
    ),
    "no model": (
        lambda client: client.models.retrieve("no-such-model"),
        openai.NotFoundError,
        404,
        "not_found_error",
        "model_not_found",
    ),
    "no task": (
        lambda client: client.get("/tasks/task_of_nobody", cast_to=object),
        openai.NotFoundError,
        404,
        "not_found_error",
        "task_not_found",
    ),
    "no route": (
        lambda client: client.post("/chat/completions", body={}, cast_to=object),
        openai.NotFoundError,
        404,
        "not_found_error",
        "not_found",
    ),
    "refused by Pixapi": (
        generate(prompt="A cup [fault:status=400 shape=string]"),
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "invalid_request",
    ),
    "failed at Pixapi": (
        generate(prompt="A cup [fault:status=500]"),
        openai.InternalServerError,
        500,
        "server_error",
        "rejected_by_pixapi",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_class_and_words(stage: Stage, case: str) -> None:
    act, kind, status, error_type, reason = REFUSED[case]
    with stage.openai(max_retries=0) as client, pytest.raises(kind) as caught:
        act(client)
    error = caught.value
    assert type(error) is kind
    assert error.status_code == status
    assert isinstance(error.body, dict)
    assert error.body["code"] == status
    assert (error.type, error.body["reason"]) == (error_type, reason)
    assert error.request_id == error.body["request_id"]
    assert error.body["message"] in error.message


def test_wrong_key(stage: Stage) -> None:
    with stage.openai(key="sk-not-a-team-key") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.type == "authentication_error"


def test_model_the_key_may_not_use(stage: Stage) -> None:
    key = stage.gateway.key(stage.team, allowed_models=["wan"])
    with stage.openai(key) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.images.generate(model=MODEL, prompt="A cup")
        assert [model.id for model in client.models.list()] == ["wan"]
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["reason"] == "model_not_allowed"


def test_sdk_waits_out_a_rate_limit(stage: Stage, client: openai.OpenAI) -> None:
    """Pixapi's 429 rests our only key for a second: an SDK without retries sees it, one with retries does not."""
    stage.arm("status=429 retry_after=1")
    with stage.openai(max_retries=0) as impatient, pytest.raises(openai.RateLimitError) as caught:
        impatient.images.generate(model=MODEL, prompt="Refused for now")
    assert caught.value.type == "rate_limit_error"
    assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 1000
    prompt = "Worth a second's wait"
    assert client.images.generate(model=MODEL, prompt=prompt).data
    assert [entry["executed"] for entry in stage.sent(prompt)] == [True]


def test_sdk_never_pays_twice_for_an_unknown_outcome(stage: Stage, client: openai.OpenAI) -> None:
    prompt = "Executed and lost [fault:reset_after_execute]"
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(model=MODEL, prompt=prompt)
    assert caught.value.type == "upstream_outcome_unknown"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert [entry["executed"] for entry in stage.sent(prompt)] == [True]


def test_upstream_key_is_in_no_output(stage: Stage) -> None:
    with stage.openai(max_retries=0) as client, pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=MODEL, prompt="A cup [fault:echo_key]")
    assert UPSTREAM_SECRET not in caught.value.response.text
    assert UPSTREAM_SECRET not in stage.gateway.process.text()
