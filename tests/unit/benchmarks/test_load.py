"""Bodies that are sent, percentiles, and the answers of the stub that behaves as told."""

from __future__ import annotations

import json

from benchmarks.compare.behaving import task_answer
from benchmarks.compare.bodies import MEGABYTE, form
from benchmarks.compare.callers import percentile
from gateway.upstream.answers import task_state


def test_percentile() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(map(float, range(100))), 0.99) == 99.0


def test_form_has_three_files() -> None:
    body = form(3)
    assert body.count(b'name="image[]"') == 3
    assert 3 * MEGABYTE < len(body) < 3 * MEGABYTE + 2000
    assert body.endswith(b"--\r\n")


def test_stub_tasks_are_pixapis() -> None:
    for status in ("submitted", "processing", "completed"):
        found = task_state(task_answer("task_1_run", status).encode())
        assert found is not None
        assert (found.status, found.has_result) == (status, status == "completed")
    assert json.loads(task_answer("task_1_end", "completed"))["credits_cost"] == 2
