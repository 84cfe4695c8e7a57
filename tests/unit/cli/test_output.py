from __future__ import annotations

import io
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
    monkeypatch.setenv("COLUMNS", "60")
    output.show_rows(("name", "state"), [{"name": "[red]x[/red] :smile:", "state": None}])
    output.show_object({"name": "y"})
    text = terminal.getvalue()
    assert "[red]x[/red] :smile:" in text
    assert "\t" not in text
    assert "\x1b[3" not in text, "no colour"


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
        with pytest.raises(typer.Exit):
            output.read_secret("Pixapi key")
