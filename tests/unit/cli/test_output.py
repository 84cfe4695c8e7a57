from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import typer

from gateway.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (Decimal("1E+3"), "1000"),
        (datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC), "2026-03-01T12:00:00Z"),
        (("a", None, 2), "a, , 2"),
        ({"a": True, "b": None}, "a=yes b="),
    ],
)
def test_values_are_plain_text(value: object, text: str) -> None:
    assert output.plain(value) == text


def test_rows_are_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    output.show_rows(("name", "state"), [{"name": "[red]x[/red] :smile:", "state": None}])
    output.show_object({"name": "y"})
    text = terminal.getvalue()
    assert "[red]x[/red] :smile:" in text
    assert "\t" not in text
    assert "\x1b" not in text, "neither colour nor bold"


def test_a_terminal_is_asked_before_something_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    asked: list[str] = []

    def refuse(question: str, *, abort: bool, err: bool) -> None:
        asked.append(question)
        assert abort
        assert err
        raise typer.Abort

    monkeypatch.setattr(typer, "confirm", refuse)
    output.confirm("Really?", yes=True)
    assert asked == []
    with pytest.raises(typer.Abort):
        output.confirm("Really?", yes=False)
    assert asked == ["Really?"]


def test_a_secret_is_typed_unseen_or_read_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"typed at {prompt}")
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert output.read_secret("Pixapi key") == "typed at Pixapi key: "
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\r\nsecond\n"))
    assert output.read_secret("Pixapi key") == "first"
    for text in ("", "\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(output.UsageProblem):
            output.read_secret("Pixapi key")


def _printed(monkeypatch: pytest.MonkeyPatch, columns: tuple[str, ...], rows: list[dict[str, object]]) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    output.show_rows(columns, rows)
    return terminal.getvalue()


def test_numbers_stand_flush_right_and_times_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    at = datetime(2026, 3, 1, 12, 30, 59, tzinfo=UTC)
    rows: list[dict[str, object]] = [
        {"team": "total", "credits": Decimal("1000.5"), "at": at},
        {"team": "a", "credits": Decimal(8), "at": None},
    ]
    lines = [line.rstrip() for line in _printed(monkeypatch, ("team", "credits", "at"), rows).splitlines()]
    assert " total    1000.5   2026-03-01 12:30Z" in lines
    assert " a             8" in lines


@pytest.mark.parametrize(
    ("values", "numeric"),
    [([1, None, Decimal("2.5"), ""], True), ([True], False), ([None], False), ([1, "2"], False), ([], False)],
)
def test_what_numbers_are(values: list[object], numeric: bool) -> None:
    assert output.is_numeric(values) is numeric


def test_only_states_are_coloured_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, object]] = [{"name": "active", "state": "active"}, {"name": "x", "state": "refused"}]
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = _printed(monkeypatch, ("name", "state"), rows)
    assert coloured.count("\x1b[32mactive") == 1
    assert coloured.count("\x1b[31mrefused") == 1
    monkeypatch.setenv("NO_COLOR", "1")
    plain = _printed(monkeypatch, ("name", "state"), rows)
    assert "\x1b[3" not in plain


def test_wide_values_fold_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    long = "x" * 100
    text = _printed(monkeypatch, ("name", "value"), [{"name": "a", "value": long}])
    assert text.count("x") == 100
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= 60


def test_progress_is_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with output.working("Looking") as say:
        say("Still looking")
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with output.working("Looking"):
        pass
    assert "Looking …" in terminal.getvalue()
