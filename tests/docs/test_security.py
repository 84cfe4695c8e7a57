"""Every claim of docs/security.md names a file that makes it true and a test that shows it, and both exist."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT, page, spans, table

CLAIMS = table(page("docs/security.md"), "claim")


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 30


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row[0][:40])
def test_a_claim_names_what_makes_and_what_shows_it(row: list[str]) -> None:
    _, made_by, shown_by = row
    assert spans(made_by)
    assert spans(shown_by)
    assert [name for name in spans(made_by) + spans(shown_by) if not (ROOT / name).is_file()] == []
    assert all(name.startswith("tests/") for name in spans(shown_by))
    assert not any(name.startswith("tests/") for name in spans(made_by))
