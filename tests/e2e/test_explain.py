"""`requests explain` on a served gateway: a call of each ending is made, and its story looked up by its request id.

The admin API and the command line tell the same, at once, in the order in which things happened, with the numbers that
decided.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually

SYNC = "/v1/images/generations"
ASYNC = "/v1/async/images/generations"
MODEL = "gemini-3-pro-image-preview"  # 8 credits an image
Story = dict[str, Any]


@pytest.fixture(scope="module")
def served(module_database_url: str, redis_url: str) -> Iterator[Gateway]:
    with (
        harness.sandbox() as pixapi,
        harness.gateway(module_database_url, redis_url, pixapi.base) as found,
    ):
        found.upstream_key("sk_explain_5f2c9ab1", "main")
        yield found


@dataclass
class Caller:
    """A team with 20 credits a month, and a key of it."""

    served: Gateway
    team: str
    key: str

    def paid(self, prompt: str = "A cup", path: str = SYNC, key: str | None = None) -> httpx.Response:
        with self.served.client(key or self.key) as client:
            return client.post(path, json={"model": MODEL, "prompt": prompt})

    def explain(self, answer: httpx.Response) -> Story:
        """The story by the API; that its steps go forward in time is part of it."""
        found: Story = self.served.call("GET", f"/requests/{answer.headers['x-request-id']}/explain")
        moments = [step["at"] for step in found["steps"]]
        assert moments == sorted(moments), found["steps"]
        assert found["earlier"] == []
        return found

    def ended(self, answer: httpx.Response) -> Story:
        """The story once the call's hold is no longer open."""

        def told() -> Story | None:
            found = self.explain(answer)
            return found if found["hold"]["state"] != "held" else None

        story: Story = eventually(told, 20, every=0.2)
        return story


@pytest.fixture
def caller(served: Gateway, request: pytest.FixtureRequest) -> Caller:
    team = served.team(request.node.name[:60], quota={"period": "month", "limit": 20})["slug"]
    return Caller(served, team, served.key(team))


def outcomes(story: Story) -> list[tuple[str, str]]:
    return [(step["step"], step["outcome"]) for step in story["steps"]]


def detail(story: Story, step: str) -> str:
    [found] = [one["detail"] for one in story["steps"] if one["step"] == step]
    return str(found)


# Refused before anything was sent ---------------------------------------------------------------------------


def test_402_shows_the_sum_that_did_not_fit(caller: Caller) -> None:
    assert caller.paid().status_code == 200
    running = caller.paid("[fault:stuck]", ASYNC)
    assert running.status_code == 200
    refused = caller.paid()
    story = caller.explain(refused)
    assert refused.status_code == 402
    assert outcomes(story)[-2:] == [("quota", "refused"), ("answer", "refused")]
    assert "limit 20 − settled 8 − held 8 = 4 remaining, 8 needed" in detail(story, "quota")
    assert (story["refusal"]["status"], story["hold"], story["attempts"]) == (402, None, [])
    assert "quotas set" in story["summary"]

    caller.served.call("PUT", f"/teams/{caller.team}/quotas/month", json={"limit": 25})
    assert "limit 20 − settled 8" in detail(caller.explain(refused), "quota"), "as it was then"
    assert "of 25 (changed to this " in detail(caller.explain(running), "hold")


def test_429_names_the_limit(caller: Caller) -> None:
    key = caller.served.key(caller.team, requests_per_minute=1)
    assert caller.paid(key=key).status_code == 200
    refused = caller.paid(key=key)
    story = caller.explain(refused)
    assert refused.status_code == 429
    assert "requests_per_minute of the key, 1 for paid calls, was used up" in detail(story, "limits")
    assert ("limits", "refused") in outcomes(story)


def test_401_says_what_is_wrong_with_the_key(caller: Caller) -> None:
    public_id = caller.key.split("_")[1]
    caller.served.call("POST", f"/keys/{public_id}/revoke")
    refused = eventually(lambda: (found := caller.paid()).status_code == 401 and found)
    story = caller.explain(refused)
    assert outcomes(story)[0] == ("key", "refused")
    assert "revoked since" in detail(story, "key")
    assert caller.key.rpartition("_")[2] not in json.dumps(story)


def test_403_names_the_model(caller: Caller) -> None:
    refused = caller.paid(key=caller.served.key(caller.team, allowed_models=["veo"]))
    story = caller.explain(refused)
    assert (refused.status_code, story["refusal"]["reason"]) == (403, "model_not_allowed")
    assert MODEL in detail(story, "asked")
    assert "allowed_models" in story["summary"]


# Sent -------------------------------------------------------------------------------------------------------


def test_a_settled_call(caller: Caller) -> None:
    answer = caller.paid("[fault:delay=0.3]")
    story = caller.ended(answer)
    assert outcomes(story) == [
        ("key", "ok"), ("price", "ok"), ("hold", "ok"), ("repeats", "note"), ("attempt", "ok"), ("end", "ok")
    ]  # fmt: skip
    assert "quoted at 8 credits" in detail(story, "price")
    assert "the team's month quota of 20" in detail(story, "hold")
    assert story["summary"] == "Executed: it was charged 8 credits by the price book."
    began, ended = story["steps"][4]["at"], story["steps"][5]["at"]
    assert story["attempts"][0]["milliseconds"] >= 300
    assert began < ended, "a send is told at its beginning"


def test_a_failed_task_costs_nothing(caller: Caller) -> None:
    story = caller.ended(caller.paid("[fault:task_fail]", ASYNC))
    assert outcomes(story)[-2:] == [("task", "failed"), ("end", "failed")]
    assert (story["hold"]["state"], story["task"]["status"]) == ("released", "failed")
    assert story["summary"].startswith("Failed without cost")


def test_an_unknown_outcome_until_an_admin_has_resolved_it(caller: Caller) -> None:
    answer = caller.paid("[fault:reset_after_execute]")
    assert answer.status_code == 502
    story = caller.ended(answer)
    assert outcomes(story)[-2:] == [("attempt", "unknown"), ("end", "unknown")]
    assert "8 credits stay held" in story["summary"]
    hold = story["hold"]["id"]
    assert f"holds resolve {hold}" in story["summary"]

    body = {"outcome": "settle", "credits": 9.5, "reason": "on the bill"}
    caller.served.call("POST", f"/holds/{hold}/resolve", json=body)
    story = caller.explain(answer)
    assert outcomes(story)[-2:] == [("end", "ok"), ("resolved", "note")]
    assert "Settled at 9.5 credits" in detail(story, "end")
    assert "1.5 of them are an overrun" in detail(story, "end")
    assert detail(story, "resolved") == "bootstrap resolved the hold (settle): on the bill"


# The command line -------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_command_line_tells_the_same(caller: Caller) -> None:
    refused = caller.paid(key=caller.served.key(caller.team, allowed_models=["veo"]))
    told = _explain(caller, refused.headers["x-request-id"], "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == caller.explain(refused)
    plain = _explain(caller, refused.headers["x-request-id"])
    assert "model_not_allowed" in plain.stdout
    assert "\x1b[" not in plain.stdout
    unknown = _explain(caller, "req_nowhere", "--json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert json.loads(unknown.stderr)["error"]["reason"] == "request_not_found"


def _explain(caller: Caller, request_id: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "requests", "explain", request_id, *flags],
        env={**os.environ, **caller.served.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
