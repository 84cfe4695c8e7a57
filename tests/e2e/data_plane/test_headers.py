"""What crosses between client and Pixapi: an allow-list in each direction."""

from __future__ import annotations

import itertools

import httpx
import pytest

from gateway import __version__
from tests.e2e.data_plane.forms import CONTENT_TYPE, ORDER, file, form
from tests.e2e.data_plane.rig import ASYNC, EDITS, SYNC, Rig, header, order
from tests.e2e.data_plane.wire import Wire, head
from tests.e2e.harness import eventually

_NUMBERS = itertools.count()

ALLOWED = {"host", "content-type", "content-length", "accept", "user-agent", "x-request-id", "authorization"}
OUT = {"date", "content-type", "content-length", "x-request-id"}
CREDITS = {"x-credits-held", "x-credits-charged", "x-credits-remaining"}

# What clients, proxies and attackers send along.
EXTRA = [
    ("cookie", "session=canary"),
    ("cookie2", "$Version=canary"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-forwarded-host", "canary.example.com"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=10.1.2.3"),
    ("x-real-ip", "10.1.2.3"),
    ("x_forwarded_for", "10.1.2.3"),
    ("via", "1.1 canary"),
    ("referer", "https://canary.example.com"),
    ("origin", "https://canary.example.com"),
    ("user-agent", "OpenAI/Python canary"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "de"),
    ("x-stainless-lang", "python"),
    ("x-stainless-retry-count", "0"),
    ("openai-organization", "canary"),
    ("x-api-key", "canary"),
    ("proxy-authorization", "Basic canary"),
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "canary"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("te", "trailers"),
    ("trailer", "x-canary"),
    ("range", "bytes=0-1"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("content-language", "de"),
    ("if-none-match", '"canary"'),
    ("prefer", "respond-async"),
]


def task_read(shared: Rig, headers: list[tuple[str, str]]) -> httpx.Response:
    """The answer of a poll that read the task itself: the reconciler may be before it, or the key's reads used up."""
    task = shared.submit("[fault:stuck]")

    def poll() -> httpx.Response | None:
        number = next(_NUMBERS)
        own = [(name, f"{value}-{number}" if name == "x-request-id" else value) for name, value in headers]
        answer = shared.client.get(f"/v1/tasks/{task}", headers=own)
        return answer if answer.headers["x-cache"] == "miss" else None

    found: httpx.Response = eventually(poll, 30, every=0.5)
    return found


@pytest.mark.parametrize("call", ["sync", "async", "form", "task", "models"])
def test_only_the_allowed_headers_reach_pixapi(shared: Rig, call: str) -> None:
    headers = [*EXTRA, ("x-request-id", f"header-test-{call}"), ("accept", "application/json;q=0.9")]
    if call == "form":
        headers.append(("content-type", CONTENT_TYPE))
        answer = shared.client.post(EDITS, content=form([*ORDER, file()]), headers=headers)
    elif call == "task":
        answer = task_read(shared, headers)
    elif call == "models":
        with Wire(shared.gateway.process.port) as wire:
            fields = [f"{name}: {value}" for name, value in headers]
            wire.send(
                head("GET /v1/models HTTP/1.1", "Host: x", f"Authorization: Bearer {shared.key}", *fields)
            )
            answer = wire.answer()
    else:
        answer = shared.client.post(ASYNC if call == "async" else SYNC, json=order(), headers=headers)
    assert answer.status_code == 200, answer.text
    entries = shared.sent(answer)
    if call == "models":  # read before, for everyone
        entries = [one for one in shared.sandbox.journal(1000) if one["path"] == "/v1/models"]
    assert entries
    for entry in entries:
        names = [name for name, _ in entry["headers"]]
        assert len(names) == len(set(names))
        assert set(names) <= ALLOWED
        assert header(entry, "authorization") == f"Bearer sk_{shared.account}_***{shared.secret[-4:]}"
        assert entry["key_last4"] == shared.secret[-4:]
        assert header(entry, "user-agent") == f"pixapi-gateway/{__version__}"
        assert header(entry, "host") == shared.sandbox.process.base.removeprefix("http://")
        assert "canary" not in str(entry)
        if call != "models":
            assert header(entry, "x-request-id") == answer.headers["x-request-id"]
            assert answer.headers["x-request-id"].startswith(f"header-test-{call}")
    if call in ("sync", "async"):
        assert header(entries[0], "accept") == "application/json;q=0.9"
        assert header(entries[0], "content-type") == "application/json"


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("fault", ["set_cookie", "hop_headers", "set_cookie hop_headers gzip"])
def test_only_the_allowed_headers_reach_the_client(shared: Rig, path: str, fault: str) -> None:
    plain = shared.client.post(path, json=order())
    answer = shared.client.post(path, json=order(f"[fault:{fault}]"))
    assert answer.status_code == 200, answer.text
    for one in (plain, answer):
        names = [name.decode() for name, _ in one.headers.raw]
        assert len(names) == len(set(names))
        assert set(names) - CREDITS == OUT
    assert answer.json().keys() == plain.json().keys()


def test_cookies_of_pixapi_are_not_sent_back_to_it(shared: Rig) -> None:
    shared.client.post(SYNC, json=order("[fault:set_cookie]"))
    answer = shared.client.post(SYNC, json=order())
    assert header(shared.sent(answer)[0], "cookie") is None


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_a_compressed_answer_is_unpacked(shared: Rig, path: str, accepted: str) -> None:
    answer = shared.client.post(path, json=order("[fault:gzip]"), headers={"accept-encoding": accepted})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "data" in answer.json() or "id" in answer.json()
    assert shared.held(answer).state == ("settled" if path == SYNC else "held")


def test_a_slow_answer_arrives_whole(shared: Rig) -> None:
    answer = shared.client.post(SYNC, json=order("[fault:drip=0.4]", n=4))
    assert len(answer.json()["data"]) == 4
    assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize("accept", ["x" * 5000, "a\tb", ""])
def test_an_odd_accept_is_not_passed_on(shared: Rig, accept: str) -> None:
    answer = shared.client.post(SYNC, json=order(), headers={"accept": accept})
    assert answer.status_code == 200
    assert header(shared.sent(answer)[0], "accept") == "*/*"
