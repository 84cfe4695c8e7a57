"""Faults armed through the control API instead of a prompt."""

from typing import Any

import httpx
import pytest

from tests.unit.sandbox.conftest import Sandbox


def test_armed_faults_are_used_up_by_matching_requests(sandbox: Sandbox) -> None:
    sandbox.control("faults", name="status", value=429, times=2, model="nano-banana")
    sandbox.control("faults", marker="status=503 shape=none", path="/v1/models")
    assert sandbox.generate().status_code == 200
    canonical = "gemini-2.5-flash-image"
    statuses = [sandbox.generate(model=model).status_code for model in (canonical, "nano-banana", canonical)]
    assert statuses == [429, 429, 200]
    assert [sandbox.client.get("/v1/models").status_code for _ in range(2)] == [503, 200]
    assert sandbox.client.get("/sandbox/state").json()["faults"] == []


def test_armed_faults_can_wait_for_a_key_and_for_task_reads(sandbox: Sandbox) -> None:
    task_id = sandbox.submit()
    sandbox.control("faults", name="status", value="500", path="/v1/tasks/*", key="other", times=None)
    sandbox.control("faults", name="reset", path="/v1/tasks/*", key="demo")
    with pytest.raises(httpx.ReadError):
        sandbox.read(task_id)
    assert sandbox.read(task_id).status_code == 200
    assert [sandbox.read(task_id, key="sk_other_1").status_code for _ in range(2)] == [500, 500]
    assert sandbox.client.delete("/sandbox/faults").json() == {"dropped": 1}
    assert sandbox.read(task_id, key="sk_other_1").status_code == 404


def test_armed_task_faults_reach_the_task(sandbox: Sandbox) -> None:
    sandbox.control("faults", name="task_fail", value="resource_exhausted")
    task_id = sandbox.submit()
    sandbox.control(f"tasks/{task_id}/end")
    assert sandbox.read(task_id).json()["error"]["code"] == "resource_exhausted"


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "nope"}, {"name": "delay"}, {"name": "reset", "times": 0}, {"name": "reset", "x": 1}],
)
def test_arming_refuses_what_it_does_not_know(sandbox: Sandbox, body: dict[str, Any]) -> None:
    assert sandbox.client.post("/sandbox/faults", json=body).status_code == 400
