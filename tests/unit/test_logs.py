"""Log lines hold named fields and nothing else, and no value can forge a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import logs
from gateway.logs import (
    BATCH_SECONDS,
    FIELDS,
    LARGEST_BATCH,
    LARGEST_WRITE,
    MOST_KEPT,
    RequestLine,
    configure,
)

LOG = logging.getLogger("gateway.tests")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves logging as pytest set it up."""
    root, own = logging.getLogger(), logging.getLogger("gateway")
    handlers, level, own_level = root.handlers, root.level, own.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    own.setLevel(own_level)


def written(monkeypatch: pytest.MonkeyPatch, style: str, level: str = "info") -> io.StringIO:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure(level, style)
    return output


def test_a_line_is_one_object_of_allowed_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(monkeypatch, "json")
    LOG.info("request", extra={"status": 200, "team": "alpha", "prompt": "a secret cup", "model": None})
    (line,) = output.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("at").endswith("+00:00")
    assert found == {
        "level": "info", "logger": "gateway.tests", "event": "request", "status": 200, "team": "alpha",
    }  # fmt: skip


def test_text_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(monkeypatch, "text")
    LOG.warning("upstream key rests", extra={"upstream_key": "main", "prompt": "a secret cup"})
    assert output.getvalue().split(" ", 1)[1] == "warning upstream key rests upstream_key=main\n"


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_failure_has_its_traceback(monkeypatch: pytest.MonkeyPatch, style: str) -> None:
    output = written(monkeypatch, style)
    try:
        raise RuntimeError("a defect")
    except RuntimeError:
        LOG.exception("request failed")
    assert "RuntimeError: a defect" in output.getvalue()


@pytest.mark.parametrize("style", ["json", "text"])
@given(value=st.text(max_size=60))
def test_no_value_forges_a_line(style: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        output = written(patch, style)
        LOG.info("request", extra={"path": f"/v1/{value}", "detail": f"\n{value}\r\x1b[31m"})
    text = output.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines() if style == "text" else text[:-1].split("\n")) == 1
    assert "\x1b" not in text


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("warning", 1)])
def test_the_level_is_ours_and_others_are_heard_from_warnings_on(
    monkeypatch: pytest.MonkeyPatch, level: str, lines: int
) -> None:
    output = written(monkeypatch, "json", level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING):
        LOG.log(number, "ours")
    logging.getLogger("sqlalchemy.engine").info("theirs")
    assert len(output.getvalue().splitlines()) == lines
    logging.getLogger("sqlalchemy.engine").warning("theirs")
    assert len(output.getvalue().splitlines()) == lines + 1


def test_any_value_can_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(monkeypatch, "json")
    LOG.info("x", extra={"detail": {"odd": {1, 2}}, "path": "\ud800", "status": float("nan")})
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["path"] == "\ud800"


def test_fields_hold_no_prompt_body_or_secret() -> None:
    assert not {"prompt", "body", "secret", "authorization", "headers", "query"} & set(FIELDS)


async def test_many_lines_are_one_write_and_a_warning_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = written(monkeypatch, "json")
    writes: list[str] = []
    monkeypatch.setattr(output, "write", writes.append)
    for _ in range(3):
        LOG.info("one of many")
    assert writes == []
    await asyncio.sleep(5 * BATCH_SECONDS)
    assert [text.count("one of many") for text in writes] == [3]
    LOG.info("before")
    LOG.warning("what warns")
    assert ["before" in text and "what warns" in text for text in writes] == [False, True]
    for _ in range(LARGEST_BATCH + 1):
        LOG.info("too many to keep")
    assert sum(text.count("too many") for text in writes) == LARGEST_BATCH
    assert all(len(text) <= LARGEST_WRITE for text in writes)
    logging.getLogger().handlers[0].flush()
    assert sum(text.count("too many") for text in writes) == LARGEST_BATCH + 1


def test_what_is_not_written_yet_is_when_the_process_ends() -> None:
    script = """
import asyncio, logging
from gateway.logs import configure
configure("info", "json")
async def main():
    logging.getLogger("gateway.tests").info("the last word")
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(ended.stderr)["event"] == "the last word"


REQUEST: dict[str, Any] = {
    "request_id": "req_1", "method": "GET", "path": "/v1/t\u00e4sks", "status": 200, "milliseconds": 0.3,
    "team": "alpha", "key": "0123456789", "task_id": "t1", "attempts": 1, "cache": "hit", "client": "192.0.2.1",
}  # fmt: skip
ODD: dict[str, Any] = {"request_id": "req_2", "path": '/\ud800\n\x1b"\u2028', "status": 0, "reason": "a b"}


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("fields", [REQUEST, ODD])
def test_a_request_s_line_is_the_one_logging_makes(
    monkeypatch: pytest.MonkeyPatch, style: str, fields: dict[str, Any]
) -> None:
    output = written(monkeypatch, style)
    logging.getLogger("gateway.access").info("request", extra=fields)
    logs.request(RequestLine(**fields))
    if style == "json":
        first, second = (json.loads(line) for line in output.getvalue().split("\n")[:-1])
        assert (list(first), first | {"at": None}) == (list(second), second | {"at": None})
        assert [len(found["at"]) for found in (first, second)] == [29, 29]
    else:
        first, second = (line[len("00:00:00") :] for line in output.getvalue().split("\n")[:-1])
        assert first == second


def test_a_request_s_line_has_allowed_fields_in_their_order() -> None:
    named = RequestLine.__struct_fields__
    assert [name for name in FIELDS if name in named] == list(named)


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("warning", 0)])
def test_a_request_s_line_has_a_level(monkeypatch: pytest.MonkeyPatch, level: str, lines: int) -> None:
    output = written(monkeypatch, "json", level)
    logs.request(RequestLine(**REQUEST))
    assert len(output.getvalue().splitlines()) == lines


def test_other_handlers_hear_of_requests_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    logs.request(RequestLine(**REQUEST))
    assert [vars(record)["task_id"] for record in caplog.records] == ["t1"]


class Refusing(io.StringIO):
    """Takes so many writes, then none until it is mended."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes

    def write(self, text: str) -> int:
        if not self.takes:
            raise BrokenPipeError
        self.takes -= 1
        return super().write(text)


async def test_what_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("info", "json")
    output = Refusing(takes=2)
    monkeypatch.setattr(sys, "stderr", output)
    for number in range(200):
        logs.request(RequestLine(request_id=f"req_{number}", status=200, path="/" + "x" * 50))
    await asyncio.sleep(5 * BATCH_SECONDS)  # the third piece of many is refused
    assert 0 < output.getvalue().count("req_") < 200
    output.takes = -1
    logging.getLogger().handlers[0].flush()
    found = [json.loads(line)["request_id"] for line in output.getvalue().splitlines()]
    assert found == [f"req_{number}" for number in range(200)]


async def test_lines_that_nobody_takes_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("info", "json")
    output = Refusing(takes=0)
    monkeypatch.setattr(sys, "stderr", output)
    for number in range(MOST_KEPT + 3 * LARGEST_BATCH):
        logs.request(RequestLine(request_id=f"req_{number}", status=200))
    output.takes = -1
    logging.getLogger().handlers[0].flush()
    found = [json.loads(line)["request_id"] for line in output.getvalue().splitlines()]
    assert MOST_KEPT <= len(found) < MOST_KEPT + LARGEST_BATCH
    assert found[-1] == f"req_{MOST_KEPT + 3 * LARGEST_BATCH - 1}"


WRITER = """
import asyncio, logging, sys
from gateway import logs
logs.configure("info", "json")
async def main():
    for number in range(4000):
        name, path = f"{sys.argv[1]}-{number}", "/" + "x" * (number % 190)
        logs.request(logs.RequestLine(request_id=name, status=200, path=path))
        if number % 400 == 0:
            logging.getLogger("gateway.tests").warning("at once", extra={"request_id": f"{name}-w"})
            await asyncio.sleep(0.002)
asyncio.run(main())
"""


def test_lines_of_processes_on_one_pipe_do_not_mix() -> None:
    reader, writer = os.pipe()
    names = ("first", "second")
    writing = [subprocess.Popen([sys.executable, "-c", WRITER, name], stderr=writer) for name in names]
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        told = [json.loads(line)["request_id"] for line in pipe]
    assert [process.wait(60) for process in writing] == [0, 0]
    for name in names:
        own = [one for one in told if one.startswith(f"{name}-") and not one.endswith("-w")]
        assert own == [f"{name}-{number}" for number in range(4000)]
    assert len(told) == 2 * (4000 + 10)
