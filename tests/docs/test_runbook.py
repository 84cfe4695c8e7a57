"""Every kind of alert has its part in the runbook, with a command or a place to look at, and no part is of none."""

from __future__ import annotations

import re

import pytest

from gateway.alerts.facts import KINDS
from tests.docs.pages import page, spans, table

RUNBOOK = page("docs/operations.md").partition("\n## Runbook\n")[2].partition("\n## ")[0]
PARTS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def test_each_kind_of_alert_has_one_part_and_no_other_has() -> None:
    assert list(PARTS) == list(KINDS)
    assert [spans(row[0])[0] for row in table(page("docs/alerts.md"), "alert")] == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_says_what_to_type(kind: str) -> None:
    assert any(span.startswith("pixapi-gateway ") for span in spans(PARTS[kind]))
