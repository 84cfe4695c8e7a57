"""Log lines hold named fields and nothing else, and no value can forge a line."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from gateway.telemetry import FIELDS, Metrics, configure

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


def test_metrics_are_of_their_own_and_well_named() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("/v1/models", "GET", "200").inc()
    first.upstream_attempts.labels("answered").inc(2)
    page = generate_latest(first.registry).decode()
    assert 'gateway_requests_total{method="GET",route="/v1/models",status="200"} 1.0' in page
    assert 'gateway_upstream_attempts_total{outcome="answered"} 2.0' in page
    assert b'outcome="answered"' not in generate_latest(second.registry)
    names = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert all(name.startswith("gateway_") for name in names)
