"""Log lines hold named fields and nothing else, and no value can forge a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.logs import BATCH_SECONDS, FIELDS, LARGEST_BATCH, LARGEST_WRITE, configure

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
