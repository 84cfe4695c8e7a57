"""What nearly every command is: one call of the admin API in this process, and its answer printed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.output import CommandFailed, fail, note, show_object, show_rows

if TYPE_CHECKING:
    from gateway.admin.api.route import Method

NOTHING: Mapping[str, Any] = {}


class AdminCommand:
    """A command's calls: `ctx` knows the configuration, `as_json` how answers are printed."""

    def __init__(self, ctx: typer.Context, *, as_json: bool) -> None:
        self._config = ctx.obj.config
        self._as_json = as_json

    def send(
        self,
        method: Method,
        path: str,
        params: Mapping[str, str] = NOTHING,
        *,
        body: Mapping[str, Any] = NOTHING,
        query: Mapping[str, Any] = NOTHING,
    ) -> Any:
        """The answer; on failure prints it and ends the command."""
        # The database and all that goes with it are loaded by commands that use them, not by --help.
        from gateway.cli.local_api import Call, run

        try:
            return asyncio.run(run(self._config, Call(method, path, params, query, body)))
        except CommandFailed as failure:
            fail(failure, as_json=self._as_json)

    def show(self, answer: Any) -> None:
        """Prints one object."""
        if not self.printed_as_json(answer):
            show_object(_values(answer))

    def show_page(self, answer: Any, columns: Sequence[str], empty: str = "There are none.") -> None:
        """Prints one page of a list, and on stderr how to go on; of an empty one `empty`."""
        if self.printed_as_json(answer):
            return
        show_rows(columns, [_values(row) for row in answer.data])
        if not answer.data:
            note(empty)
        if answer.has_more:
            note(f"There are more: repeat the command with --after {answer.next}")

    def printed_as_json(self, answer: object) -> bool:
        """Prints the answer if JSON was asked for; whether it was."""
        if self._as_json:
            from gateway.cli.local_api import json_text

            typer.echo(json_text(answer))
        return self._as_json


def _values(answer: Any) -> dict[str, Any]:
    return {
        name: [_short(part) for part in value] if name == "quotas" else value
        for name, value in ((name, getattr(answer, name)) for name in answer.__struct_fields__)
    }


def _short(quota: Any) -> str:
    return f"{quota.period} {quota.limit:f}{'' if quota.enforce else ' (shadow)'}"
