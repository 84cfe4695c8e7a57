"""What commands print: the API's object with `--json`, a table on a terminal, tab-separated lines elsewhere.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage or configuration. Colours are for
states alone, on a terminal, and not with NO_COLOR.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import typer

FAILED = 1
USAGE = 2
LONGEST_SECRET = 4096
# Words of states, as the API says them; any other word is printed as it is.
COLOURS = {
    **dict.fromkeys(("ok", "active", "settled", "completed", "delivered"), "green"),
    **dict.fromkeys(("warn", "draining", "suspended", "rotated", "held", "pending", "warning"), "yellow"),
    **dict.fromkeys(
        ("fail", "failed", "refused", "revoked", "disabled", "expired", "unknown", "critical"), "red"
    ),
}
STATES = frozenset({"state", "status", "severity"})  # columns that may be coloured


class CommandFailed(Exception):  # noqa: N818 - it is the end of a command, not a kind of error
    """Ends the command: `message` for people, `body` the JSON error object for programs."""

    def __init__(self, exit_code: int, message: str, body: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.body = body


class UsageProblem(typer.BadParameter):
    """What is wrong with how a command was called, in its own words."""

    def format_message(self) -> str:
        return self.message


def fail(failure: CommandFailed, *, as_json: bool) -> NoReturn:
    """Prints the failure on stderr and ends the command."""
    typer.echo(failure.body if as_json and failure.body else f"Error: {failure.message}", err=True)
    raise typer.Exit(failure.exit_code)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    typer.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone; without a terminal only `--yes` answers."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem(f"{question} There is no terminal to ask on: repeat the command with --yes.")
    typer.confirm(question, abort=True, err=True)


def confirm_by_typing(question: str, word: str, *, yes: bool) -> None:
    """Asks for a word to be typed before something large goes for good; without a terminal only `--yes` answers."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem(f"{question} There is no terminal to ask on: repeat the command with --yes.")
    if typer.prompt(f"{question} Type {word} to go on", default="", show_default=False, err=True) != word:
        raise typer.Abort


def read_secret(prompt: str) -> str:
    """A secret from a hidden prompt, or the first line of a stdin that is no terminal. Never from argv."""
    typed = sys.stdin.isatty()
    line = getpass.getpass(f"{prompt}: ") if typed else sys.stdin.readline(LONGEST_SECRET)
    secret = line.rstrip("\r\n")
    if not secret:
        raise UsageProblem(
            f"no secret. Type it at the prompt, or send it as the first line of stdin ({prompt})."
        )
    return secret


@contextmanager
def working(doing: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that something is being done; what it yields changes the words. Nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _words: None
        return
    from rich.console import Console

    with Console(stderr=True, markup=False, emoji=False).status(f"{doing} …") as status:
        yield lambda words: status.update(f"{words} …")


def report(values: dict[str, Any], *, as_json: bool) -> None:
    """One object of JSON values: as JSON, or a line a field."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False))
    else:
        show_object(values)


def show_object(values: dict[str, Any]) -> None:
    """One object, a line a field."""
    if not sys.stdout.isatty():
        for name, value in values.items():
            typer.echo(f"{name}\t{plain(value)}")
        return
    _table(None, [{"field": name, "value": value} for name, value in values.items()])


def show_rows(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Some objects, a line each, with these of their fields; the first line names them."""
    if sys.stdout.isatty():
        _table(columns, rows)
        return
    typer.echo("\t".join(columns))
    for row in rows:
        typer.echo("\t".join(plain(row[column]) for column in columns))


def plain(value: object) -> str:
    """A value as people read it, on one line; nothing at all for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={plain(part)}" for name, part in value.items())
    return str(value)


def short(value: object) -> str:
    """The same for the cell of a wide table: a time to the minute, in UTC."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%MZ}"
    return plain(value)


def is_numeric(values: Sequence[object]) -> bool:
    """Whether these are numbers to be compared, and so stand flush right; gaps and a total's label may be between."""
    found = [value for value in values if value is not None and value != ""]
    return bool(found) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in found
    )


def _table(columns: Sequence[str] | None, rows: Sequence[dict[str, Any]]) -> None:
    # Only a terminal pays for loading rich.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if columns else None, show_header=columns is not None, pad_edge=False)
    names = columns or ("field", "value")
    for name in names:
        right = columns is not None and is_numeric([row[name] for row in rows])
        style = "bold" if columns is None and name == "field" else None
        table.add_column(name, overflow="fold", style=style, justify="right" if right else "left")
    for row in rows:
        table.add_row(*[Text(_cell(row, name), COLOURS.get(_word(row, name), "")) for name in names])
    # Names are data: no markup in them is obeyed. With NO_COLOR rich itself would leave bold and italics.
    plainly = bool(os.environ.get("NO_COLOR"))
    Console(markup=False, emoji=False, highlight=False, color_system=None if plainly else "auto").print(table)


def _cell(row: dict[str, Any], name: str) -> str:
    return plain(row[name]) if name == "value" else short(row[name])


def _word(row: dict[str, Any], name: str) -> str:
    """The word of a state in this cell, "" in others."""
    is_state = name in STATES or (name == "value" and row.get("field") in STATES)
    return str(row[name]) if is_state else ""
