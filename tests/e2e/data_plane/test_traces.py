"""What is left of a call in logs and tables: one line each, and no prompt, body, key or secret anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.data_plane.forms import CONTENT_TYPE, Part, field, file, form
from tests.e2e.data_plane.rig import (
    ASYNC,
    EDITS,
    SYNC,
    Rig,
    error_of,
    new_secret,
    order,
    request_id_of,
    runs_of,
)
from tests.e2e.data_plane.wire import Wire, head
from tests.e2e.harness import eventually

CANARY = "cup-of-canary-tea"
FORGED = 'x\r\n{"level":"info","event":"forged"}\x1b[31m'
FIELDS = {
    "at",
    "level",
    "logger",
    "event",
    "request_id",
    "method",
    "path",
    "status",
    "milliseconds",
    "client",
}
OPTIONAL = {"reason", "upstream_ms", "team", "key", "model", "operation", "hold", "task_id", "upstream_key"}
OPTIONAL |= {"attempts", "cache"}


def lines(rig: Rig) -> list[dict[str, Any]]:
    """The log: every line of it must be one JSON object."""
    found = [json.loads(line) for line in rig.gateway.process.text().splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def access(rig: Rig, answer: httpx.Response | str) -> dict[str, Any]:
    """The one access line of an answer."""
    ident = request_id_of(answer)

    def check() -> list[dict[str, Any]]:
        return [one for one in lines(rig) if one["logger"] == "gateway.access" and one["request_id"] == ident]

    [line] = eventually(check)
    assert isinstance(line, dict)
    return line


@pytest.fixture(scope="module")
def calls(shared: Rig) -> Iterator[list[httpx.Response]]:
    """Calls of every kind that carry the canary wherever a client can put one."""
    head_canary = {"user-agent": CANARY, "x-mine": CANARY, "cookie": f"a={CANARY}"}
    with shared.caller(shared.key) as client:
        client.headers.update(head_canary)
        prompts = ["", "[fault:status=400]", "[fault:echo_key]", "[fault:executes_then_500]", "[fault:reset]"]
        prompts += ["[fault:html]", "[fault:cut]"]
        found = [client.post(SYNC, json=order(CANARY + prompt, user=CANARY)) for prompt in prompts]
        found += [
            client.post(ASYNC, json=order(CANARY + prompt)) for prompt in ("", "[fault:poll_404_first=1]")
        ]
        found += [client.get(f"/v1/tasks/{answer.json()['id']}") for answer in found[-2:]]
        picture = file(data=CANARY.encode() * 100, filename=f"{CANARY}.png")
        fields = [field("model", "nano-banana"), field("prompt", CANARY), field(CANARY, CANARY)]
        for parts in (
            [*fields, picture],
            [*fields, Part("size", b"\xff"), picture],
            [*fields, *[picture] * 17],
        ):
            found.append(client.post(EDITS, content=form(parts), headers={"content-type": CONTENT_TYPE}))
        for text in (f'{{"{CANARY}":1,"{CANARY}":2}}', f'{{"model":"x","prompt":"{CANARY}"', f'"{CANARY}"'):
            found.append(client.post(SYNC, content=text, headers={"content-type": "application/json"}))
        found.append(client.post(SYNC, json=order(CANARY, n=99)))
        found.append(client.get(f"/v1/models?{CANARY}={shared.key}"))
        found.append(client.get("/v1/models"))
        found.append(client.get("/v1/models", headers={"authorization": f"Bearer {shared.key[:-1]}"}))
        found.append(client.get("/v1/nothing"))
        yield found


def test_every_answer_has_one_line(shared: Rig, calls: list[httpx.Response]) -> None:
    for answer in calls:
        line = access(shared, answer)
        assert FIELDS <= line.keys() <= FIELDS | OPTIONAL
        assert (line["status"], line["method"]) == (answer.status_code, answer.request.method)
        assert line["path"] == answer.request.url.path
        assert line["client"] == "127.0.0.1"
        if answer.is_error:
            assert line["reason"] == answer.json()["error"]["reason"]
        if answer.status_code not in (401, 404):
            assert line["team"] == shared.team
            assert line["key"] == shared.key[4:14]


def test_a_paid_call_s_line_says_what_became_of_it(shared: Rig, calls: list[httpx.Response]) -> None:
    sync, task = calls[0], calls[7]
    line = access(shared, sync)
    assert line["hold"] == str(shared.held(sync).id)
    assert (line["operation"], line["attempts"], line["upstream_key"]) == ("images.generations", 1, "first")
    assert line["upstream_ms"] <= line["milliseconds"] + 1
    assert access(shared, task)["task_id"] == task.json()["id"]
    assert access(shared, calls[9])["cache"] == calls[9].headers["x-cache"]


def test_a_head_refused_on_the_socket_leaves_a_line_too(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head("GET /" + "x" * 9000 + " HTTP/1.1", "Host: x"))
        refused = wire.answer()
    line = access(shared, refused.headers["x-request-id"])
    assert (line["status"], line["reason"]) == (414, "uri_too_long")


def test_nothing_a_client_sends_forges_a_line(shared: Rig) -> None:
    answer = shared.client.post(SYNC, json=order(FORGED, user=FORGED) | {"model": "x" + FORGED[:1]})
    access(shared, answer)
    odd = shared.client.post(SYNC, json=order() | {"model": '{"event":"forged"}'})
    error_of(odd, 403, "permission_error")
    assert "model" not in access(shared, odd)
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head('GET /v1/{"event":"forged"} HTTP/1.1', "Host: x", "x-request-id: forged-line-test"))
        assert wire.answer().status_code == 404
    access(shared, "forged-line-test")
    assert not [line for line in lines(shared) if line["event"] == "forged"]


def test_no_canary_is_in_the_log(shared: Rig, calls: list[httpx.Response]) -> None:
    for answer in calls:
        access(shared, answer)
    text = shared.gateway.process.text()
    assert CANARY not in text
    assert shared.key not in text
    assert shared.key[15:47] not in text


def test_no_secret_is_in_any_answer(shared: Rig, calls: list[httpx.Response]) -> None:
    everything = "".join(answer.text + str(answer.headers) for answer in calls)
    everything += shared.gateway.process.text()
    for path in ("/upstream-keys", "/teams", f"/teams/{shared.team}/keys", "/tasks", "/audit", "/status"):
        everything += json.dumps(shared.gateway.call("GET", path))
    everything += shared.gateway.admin.get("/metrics").text
    for secret in (shared.secret, shared.key):
        assert not [run for run in runs_of(secret) if run in everything]


def test_no_secret_or_prompt_is_in_the_database(shared: Rig, calls: list[httpx.Response]) -> None:
    rotated = new_secret(shared.account)
    made = shared.gateway.upstream_key(rotated, account=shared.account)
    shared.gateway.call("DELETE", f"/upstream-keys/{made['id']}")
    bootstrap = shared.gateway.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]
    dump = dumped(shared)
    assert len(dump) > 1000
    assert str(shared.held(calls[0]).id) in dump
    for secret in (shared.secret, rotated, shared.key, bootstrap, CANARY):
        tail = secret.rpartition("_")[2]
        assert tail not in dump, "as text"
        assert tail.encode().hex() not in dump, "as bytes"


def dumped(rig: Rig) -> str:
    """Every row of every table as text; bytes in hex."""
    tables = rig.rows(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    rows: list[str] = []
    for table in tables:
        assert re.fullmatch(r"[a-z0-9_]+", table["relname"])
        rows += [str(row["text"]) for row in rig.rows(f'SELECT t::text AS text FROM "{table["relname"]}" t')]
    return "\n".join(rows)


def test_refusals_before_a_request_leak_nothing_either(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head(f"GET /v1/models?{CANARY} HTTP/9.9", "Host: x", f"Authorization: Bearer {shared.key}"))
        answer = wire.answer()
    error = error_of(answer, 400, "invalid_request_error")
    assert CANARY not in str(error)
    assert CANARY not in shared.gateway.process.text()
