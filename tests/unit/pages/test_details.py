"""Details as people read them."""

from __future__ import annotations

from gateway.admin.pages.details import MOST_LINES, Line, lines, sentence


def test_what_was_and_what_is() -> None:
    detail = {"limit": {"from": None, "to": 20}, "models": {"from": ["a", "b"], "to": []}, "enforce": True}
    assert lines(detail) == [
        Line("limit", "20", "–"),
        Line("models", "–", "a, b"),
        Line("enforce", "true"),
    ]
    assert sentence(detail) == "limit: – → 20; models: a, b → –; enforce: true"


def test_what_was_before_as_a_whole() -> None:
    detail = {"limit": 20, "enforce": False, "period": "month", "from": {"limit": 10, "enforce": False}}
    assert lines(detail) == [Line("limit", "20", "10"), Line("enforce", "false"), Line("period", "month")]


def test_where_from_is_a_word_like_any_other() -> None:
    assert lines({"from": "here", "host": "there"}) == [Line("from", "here"), Line("host", "there")]
    assert lines({"from": {"gone": 1}, "host": "there"}) == [Line("from.gone", "1"), Line("host", "there")]


def test_times_are_read_by_people() -> None:
    assert lines({"expires_at": "2026-11-21T17:41:30.595068+00:00"}) == [
        Line("expires_at", "2026-11-21 17:41 UTC")
    ]
    assert lines({"day": "2026-11-21"}) == [Line("day", "2026-11-21")]
    assert lines({"odd": "2026-99-99T99:99:99Z"}) == [Line("odd", "2026-99-99T99:99:99Z")]


def test_there_are_not_too_many() -> None:
    assert len(lines({str(number): number for number in range(1000)})) == MOST_LINES
