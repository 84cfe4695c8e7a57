"""The flags several commands share, and how their text becomes the fields of an admin API call.

A flag is the API's field with dashes. What is not given is not sent; in an `update` the word `none` takes a
restriction away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

NONE = "none"


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command."""

    config: Path | None


Json = Annotated[bool, typer.Option("--json", help="Print the API's object as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PageLimit = Annotated[str | None, typer.Option("--limit", help="Rows a page, 1 to 200 (50).")]
After = Annotated[str | None, typer.Option("--after", help="The cursor the page before ended with.")]
Team = Annotated[str | None, typer.Argument(metavar="TEAM", help="Id or slug.", show_default=False)]
PlacedFrom = Annotated[
    str | None, typer.Option("--from", help="Placed then or later: a date (in UTC) or a time with a zone.")
]
PlacedTo = Annotated[str | None, typer.Option("--to", help="Placed before then.")]
TeamFlag = Annotated[str | None, typer.Option("--team", help="The team's id or slug.")]
Key = Annotated[str | None, typer.Argument(metavar="KEY", help="The key's public id.", show_default=False)]
IdFlag = Annotated[str | None, typer.Option("--id", help="The same as the argument.")]
AllowedModels = Annotated[
    str | None, typer.Option(help="Models it may use: a,b (default: every priced one).")
]
AllowedAddresses = Annotated[str | None, typer.Option(help="Addresses it works from: 10.0.0.0/8,…")]
RequestsPerMinute = Annotated[str | None, typer.Option(help="At most so many requests a minute.")]
MaxInFlight = Annotated[str | None, typer.Option(help="At most so many paid calls at a time.")]


def word(*words: str, help: str, several: bool = False) -> Any:  # noqa: A002 - as typer calls it
    """An option that takes one of these words, or `several` with commas: completed by the shell, and a slip is
    answered with what was meant."""

    def check(value: str | None) -> str | None:
        for part in [] if value is None else value.split(",") if several else [value]:
            given = part.strip().lower()
            near = [] if given in words else get_close_matches(given, words, 1)
            if near:  # any other word is for the API to refuse, with all else that is wrong
                known = ", ".join(words)
                raise typer.BadParameter(f"'{part.strip()}' is not one of {known}. Did you mean '{near[0]}'?")
        return value

    def complete(incomplete: str) -> Iterator[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return (f"{before}{comma}{one}" for one in words if one.startswith(last.lower()))

    return typer.Option(help=help, callback=check, autocompletion=complete)


PERIODS = ("day", "week", "month", "total")
KEY_STATES = ("active", "rotated", "expired", "revoked")
HOLD_STATES = ("held", "unknown", "settled", "released")


def one_of(argument: str | None, flag: str | None, name: str) -> str:
    """What was named by argument or by `--name`; a usage error unless it was exactly one of them."""
    if argument is not None and flag is not None:
        raise typer.BadParameter(f"given twice: as an argument and as --{name}")
    found = argument if argument is not None else flag
    if found is None:
        raise typer.BadParameter(f"which one? Give the {name}")
    return found


def fields(**given: object) -> dict[str, object]:
    """The fields that were given."""
    return {name: value for name, value in given.items() if value is not None}


def changes(nullable: Mapping[str, object], **given: object) -> dict[str, object]:
    """The fields of an update: those of `nullable` may be `none`, which becomes null."""
    cleared = {name: None for name, value in nullable.items() if value == NONE}
    kept = {name: value for name, value in nullable.items() if value is not None and value != NONE}
    return fields(**given) | kept | cleared


def number(text: str | None) -> int | Decimal | str | None:
    """Number text as a number, exactly; anything else stays text, for the API to refuse by name."""
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("+-").isdecimal() and text.isascii() else Decimal(text)
    except (InvalidOperation, ValueError):
        return text


def names(text: str | None) -> list[str] | str | None:
    """`a,b` as a list; `none` stays a word."""
    if text is None or text == NONE:
        return text
    return [part.strip() for part in text.split(",")]
