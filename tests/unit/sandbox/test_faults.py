"""Every fault of the catalogue, seen from a client over a real socket."""

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sandbox.faults import BY_NAME, UnknownFaultError, collect, help_text, read_prompt
from tests.unit.sandbox.conftest import Sandbox

DOCUMENT = Path(__file__).parents[3] / "docs" / "sandbox.md"


def executions(sandbox: Sandbox) -> tuple[int, float]:
    """How often something was executed, and what it cost."""
    counter = sandbox.counters()
    return counter["executions"], counter["credits"]


def finished(sandbox: Sandbox, marker: str, **fields: Any) -> dict[str, Any]:
    """A task submitted with this marker and ended at once."""
    task_id = sandbox.submit(f"a cup [fault:{marker}]", **fields)
    sandbox.control(f"tasks/{task_id}/end")
    task: dict[str, Any] = sandbox.read(task_id).json()
    return task


def check_delay(sandbox: Sandbox) -> None:
    started = time.monotonic()
    assert sandbox.generate("[fault:delay=0.2]").status_code == 200
    assert time.monotonic() - started >= 0.2


def check_status(sandbox: Sandbox) -> None:
    error = sandbox.generate("[fault:status=503]")
    assert (error.status_code, error.json()["error"]["code"]) == (503, 503)
    assert executions(sandbox) == (0, 0)


def check_shape(sandbox: Sandbox) -> None:
    string = sandbox.generate("[fault:status=429 shape=string]").json()["error"]
    assert (string["code"], set(string)) == ("rate_limited", {"code", "message", "request_id"})
    numeric = sandbox.generate("[fault:status=429][fault:shape=numeric]").json()["error"]
    assert (numeric["code"], set(numeric)) == (429, {"code", "message", "type"})
    html = sandbox.generate("[fault:status=502 shape=html]")
    assert (html.status_code, html.headers["content-type"].split(";")[0]) == (502, "text/html")
    bare = sandbox.generate("[fault:status=500 shape=none]")
    assert (bare.status_code, bare.content) == (500, b"")


def check_retry_after(sandbox: Sandbox) -> None:
    assert sandbox.generate("[fault:status=429 retry_after=7]").headers["retry-after"] == "7"


def check_echo_key(sandbox: Sandbox) -> None:
    error = sandbox.post("/v1/images/generations", key="sk_demo_loud", prompt="[fault:echo_key=403]")
    assert error.status_code == 403
    assert "sk_demo_loud" in error.text


def check_html(sandbox: Sandbox) -> None:
    page = sandbox.generate("[fault:html]")
    assert (page.status_code, page.text[:9]) == (200, "<!doctype")
    assert executions(sandbox) == (0, 0)


def check_redirect(sandbox: Sandbox) -> None:
    moved = sandbox.generate("[fault:redirect]")
    assert (moved.status_code, moved.headers["location"]) == (307, f"{sandbox.url}/v1/moved")
    assert sandbox.generate("[fault:redirect=302]").status_code == 302


def check_reset(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ReadError):
        sandbox.generate("[fault:reset]")
    assert executions(sandbox) == (0, 0)
    assert sandbox.journal()[0]["status"] == 0


def check_hang(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ReadTimeout):
        sandbox.client.post(
            "/v1/images/generations", json={"model": "veo", "prompt": "[fault:hang]"}, timeout=0.2
        )
    with pytest.raises(httpx.ReadError):
        sandbox.generate("[fault:hang=0.1]")
    assert executions(sandbox) == (0, 0)


def check_reset_after_execute(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ReadError):
        sandbox.generate("[fault:reset_after_execute]")
    assert executions(sandbox) == (1, 1)


def check_hang_after_execute(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ReadError):
        sandbox.generate("[fault:hang_after_execute=0.1]")
    assert executions(sandbox) == (1, 1)


def check_executes_then_500(sandbox: Sandbox) -> None:
    assert sandbox.generate("[fault:executes_then_500]").status_code == 500
    assert sandbox.generate("[fault:executes_then_500=524 shape=html]").status_code == 524
    assert executions(sandbox) == (2, 2)


def check_empty_204(sandbox: Sandbox) -> None:
    empty = sandbox.generate("[fault:empty_204]")
    assert (empty.status_code, empty.content) == (204, b"")
    assert executions(sandbox) == (1, 1)


def check_no_data(sandbox: Sandbox) -> None:
    assert set(sandbox.generate("[fault:no_data]").json()) == {"created"}
    submitted = sandbox.post("/v1/async/images/generations", prompt="[fault:no_data]").json()
    assert set(submitted) == {"status", "progress", "created_at", "model"}
    assert executions(sandbox)[0] == 2


def check_bad_json(sandbox: Sandbox) -> None:
    answer = sandbox.generate("[fault:bad_json]")
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def check_half_body(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        sandbox.generate("[fault:half_body]")
    assert executions(sandbox) == (1, 1)


def check_cut(sandbox: Sandbox) -> None:
    body = {"model": "gpt-image-1.5", "prompt": "[fault:cut]"}
    with sandbox.client.stream("POST", "/v1/images/generations", json=body) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.ReadError):
            answer.read()
    assert 0 < answer.num_bytes_downloaded < int(answer.headers["content-length"])
    assert executions(sandbox) == (1, 1)


def check_drip(sandbox: Sandbox) -> None:
    started = time.monotonic()
    assert sandbox.generate("[fault:drip=0.2]").json()["data"]
    assert time.monotonic() - started >= 0.2


def check_big(sandbox: Sandbox) -> None:
    answer = sandbox.generate("[fault:big=5]", response_format="b64_json")
    assert len(answer.json()["data"][0]["b64_json"]) == 5_000_000
    assert int(answer.headers["content-length"]) == len(answer.content)


def check_gzip(sandbox: Sandbox) -> None:
    body = {"model": "gpt-image-1.5", "prompt": "[fault:gzip]"}
    headers = {"Accept-Encoding": "identity"}
    with sandbox.client.stream("POST", "/v1/images/generations", json=body, headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(b"".join(answer.iter_raw())))["data"]


def check_set_cookie(sandbox: Sandbox) -> None:
    assert len(sandbox.generate("[fault:set_cookie]").headers.get_list("set-cookie")) == 2
    sandbox.client.cookies.clear()


def check_hop_headers(sandbox: Sandbox) -> None:
    headers = sandbox.generate("[fault:hop_headers]").headers
    assert "X-Up" in headers["connection"]
    assert headers["x-up"] == "hop"


def check_data_empty(sandbox: Sandbox) -> None:
    assert sandbox.generate("[fault:data_empty]").json()["data"] == []
    task = finished(sandbox, "data_empty")
    assert (task["result"]["data"], task["credits_cost"]) == ([], 0)
    assert executions(sandbox) == (2, 0)


def check_fewer_images(sandbox: Sandbox) -> None:
    assert len(sandbox.generate("[fault:fewer_images]", n=3).json()["data"]) == 2
    task = finished(sandbox, "fewer_images=1", n=4)
    assert (len(task["result"]["data"]), task["credits_cost"]) == (1, 1)
    assert executions(sandbox) == (2, 3)


def check_duration(sandbox: Sandbox) -> None:
    started = time.monotonic()
    sandbox.ended(sandbox.submit("[fault:duration=0.5]"))
    assert time.monotonic() - started >= 0.4


def check_stuck(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:stuck duration=0.01]")
    task = sandbox.until(task_id, lambda task: task["progress"] > 50)
    assert task["status"] == "processing"
    sandbox.control(f"tasks/{task_id}/end")
    assert sandbox.read(task_id).json()["status"] == "completed"


def check_task_fail(sandbox: Sandbox) -> None:
    plain, coded = finished(sandbox, "task_fail"), finished(sandbox, "task_fail=service_error")
    assert (plain["status"], plain["error"]["code"]) == ("failed", "content_policy_violation")
    assert (coded["credits_cost"], coded["error"]["code"]) == (0, "service_error")
    assert "result" not in plain
    assert executions(sandbox) == (2, 0)


def check_fail_with_cost(sandbox: Sandbox) -> None:
    task = finished(sandbox, "fail_with_cost=0.5")
    assert (task["status"], task["credits_cost"]) == ("failed", 0.5)
    assert executions(sandbox) == (1, 0.5)


def check_cost(sandbox: Sandbox) -> None:
    assert "credits_cost" not in finished(sandbox, "cost=missing")
    assert finished(sandbox, "cost=null")["credits_cost"] is None
    assert finished(sandbox, 'cost="1.5"')["credits_cost"] == "1.5"
    assert executions(sandbox) == (3, 3.5)
    for raw in ("NaN", "1e400", "-1", '"NaN"'):
        task_id = sandbox.submit(f"[fault:cost={raw}]")
        sandbox.control(f"tasks/{task_id}/end")
        assert f'"credits_cost":{raw},' in sandbox.read(task_id).text
    assert executions(sandbox) == (7, 7.5)


def check_no_url(sandbox: Sandbox) -> None:
    assert finished(sandbox, "no_url", n=2)["result"]["data"] == [{}, {}]


def check_odd_status(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:odd_status=In_Progress duration=0.3]")
    sandbox.until(task_id, lambda task: task["status"] == "In_Progress")
    assert sandbox.ended(task_id)["status"] == "completed"


def check_extra_fields(sandbox: Sandbox) -> None:
    assert {"estimated_time", "trace"} < set(sandbox.read(sandbox.submit("[fault:extra_fields]")).json())


def check_duplicate_terminal(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:duplicate_terminal]")
    sandbox.control(f"tasks/{task_id}/end")
    first, second = sandbox.read(task_id).json(), sandbox.read(task_id).json()
    assert (first["status"], first["credits_cost"]) == ("completed", 1)
    assert (second["status"], second["credits_cost"]) == ("failed", 0)
    assert second["completed"] > first["completed"]


def check_poll_404_first(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:poll_404_first=2]")
    assert [sandbox.read(task_id).status_code for _ in range(3)] == [404, 404, 200]


def check_poll_status(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:poll_status=500:2 shape=string]")
    assert [sandbox.read(task_id).status_code for _ in range(3)] == [500, 500, 200]
    always = sandbox.submit("[fault:poll_status=429 retry_after=1]")
    assert [sandbox.read(always).headers["retry-after"] for _ in range(3)] == ["1"] * 3


def check_poll_hang(sandbox: Sandbox) -> None:
    task_id = sandbox.submit("[fault:poll_hang=1]")
    with pytest.raises(httpx.ReadTimeout):
        sandbox.read(task_id, timeout=0.2)
    assert sandbox.read(task_id).status_code == 200


CHECKS: dict[str, Callable[[Sandbox], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_fault(sandbox: Sandbox, name: str) -> None:
    CHECKS[name](sandbox)


def test_every_check_names_a_fault() -> None:
    assert set(CHECKS) == set(BY_NAME)


def test_markers_are_read_together() -> None:
    faults = read_prompt("a [fault:status=429 shape=none] cup [fault:delay=1]")
    assert faults.labels() == ["status=429", "shape=none", "delay=1"]
    assert read_prompt("no marker [fault") == read_prompt("")


@pytest.mark.parametrize(
    "piece", ["nope", "delay", "delay=nan", "delay=-1", "status=99", "reset=1", "shape=xml", "poll_status=5"]
)
def test_values_are_checked(piece: str) -> None:
    with pytest.raises(UnknownFaultError):
        collect([piece])


def test_help_and_document_name_every_fault() -> None:
    document = DOCUMENT.read_text()
    for name in BY_NAME:
        assert f"  {name}" in help_text()
        assert f"| `{name}" in document, name
