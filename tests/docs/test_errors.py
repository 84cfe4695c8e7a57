"""docs/errors.md holds every failure the source can answer, with its status, type and retry hint, and no other."""

from __future__ import annotations

from tests.docs.pages import page, spans, table
from tests.docs.reasons import COMPUTED, Failure, called, computed_reasons, constructors, failures


def documented() -> list[Failure]:
    found = []
    for reason, status, kind, retry, *_ in table(page("docs/errors.md"), "reason"):
        found.append(Failure(spans(reason)[0], status, kind.strip("`"), retry))
    return found


def test_every_failure_of_the_source_is_on_the_page_and_no_other() -> None:
    assert sorted(documented()) == sorted(failures())


def test_a_failure_has_one_row() -> None:
    rows = documented()
    assert len(rows) == len(set(rows))


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    for row in table(page("docs/errors.md"), "reason"):
        assert len(row) == 6, row
        assert all(len(cell) > 4 for cell in row[4:]), row


def test_reasons_put_together_at_run_time_are_known() -> None:
    assert computed_reasons() == set(COMPUTED)


def test_no_constructor_is_left_unused() -> None:
    assert len(constructors()) > 15
    assert set(constructors()) - called() == set()
