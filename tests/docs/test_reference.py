"""The reference pages name every setting, metric, log field, route, command and fault, and none that is not there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.routing import Route

from gateway import logs
from gateway.admin.api.openapi import PREFIX
from gateway.admin.api.routes import ROUTES
from gateway.alerts.facts import KINDS
from gateway.app import routes
from gateway.cli.main import command_line
from gateway.composition import build
from gateway.sandbox.faults import CATALOGUE
from gateway.settings import load
from gateway.settings.model import FIELDS, SECTIONS, environment_name
from tests.docs.exported import families
from tests.docs.pages import ROOT, code, page, pages, spans, table

GATEWAY = ROOT / "gateway"
ADMIN_HEADING = "## For the platform team"
METHOD_PATH = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)`")
COMMAND = re.compile(r"\bpixapi-gateway ([a-z][a-z-]*)((?: [^\s'\"`;|]+)*)")
QUOTED_COMMAND = re.compile(r"['`]pixapi-gateway ([a-z][a-z-]*)([^'`\n]*)['`]")


def source(path: Path = GATEWAY) -> str:
    return "\n".join(file.read_text("utf-8") for file in sorted(path.rglob("*.py")))


# Settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", FIELDS)
def test_each_setting_has_its_row(setting: str) -> None:
    row = f"| `{setting}` | `{environment_name(setting)}` |"
    assert page("docs/configuration.md").count(row) == 1


@pytest.mark.parametrize("name", pages())
def test_each_setting_a_page_names_exists(name: str) -> None:
    sections = "|".join(SECTIONS)
    named = re.findall(rf"`({sections})\.([a-z_]+)\b(?!\.py|\.md|/)", page(name))
    assert [f"{section}.{field}" for section, field in named if f"{section}.{field}" not in FIELDS] == []


@pytest.mark.parametrize("setting", FIELDS)
def test_each_setting_is_read_somewhere(setting: str) -> None:
    assert setting.partition(".")[2] in _attributes_read()


@cache
def _attributes_read() -> set[str]:
    """Every attribute anything but the settings' own declarations and the sandbox looks at."""
    found = set()
    for file in GATEWAY.rglob("*.py"):
        inside = file.relative_to(GATEWAY)
        if inside.parts[0] not in ("settings", "sandbox") or inside.name == "model.py":
            tree = ast.walk(ast.parse(file.read_text("utf-8")))
            found |= {node.attr for node in tree if isinstance(node, ast.Attribute)}
    return found


# Metrics and log --------------------------------------------------------------------------------------------


def test_metrics_are_listed_with_type_and_labels() -> None:
    listed = {
        spans(name)[0]: (kind, tuple(spans(labels)))
        for name, kind, labels, *_ in table(page("docs/metrics.md"), "metric")
    }
    assert listed == _metrics()


def test_expressions_name_metrics_that_exist() -> None:
    for name in pages():
        for word in re.findall(r"\bgateway_[a-z_]+", page(name)):
            base = re.sub(r"_(bucket|count|sum|created)$", "", word)
            assert base in _metrics() or not word.startswith(tuple(_metrics())), (name, word)


@cache
def _metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name on the page of Prometheus → type and labels."""
    found = {}
    for family, labelnames in families():
        suffix = "_total" if family.type == "counter" else ""
        found[family.name + suffix] = (family.type, labelnames)
    assert len(found) > 3
    return found


def test_log_fields_are_listed() -> None:
    listed = [name for row in table(page("docs/operations.md"), "field") for name in spans(row[0])]
    assert sorted(listed) == sorted(logs.FIELDS)


def test_log_events_to_look_for_are_written_somewhere() -> None:
    events = [event for row in table(page("docs/operations.md"), "event") for event in spans(row[0])]
    assert len(events) > 5
    written = source()
    assert [event for event in events if f'"{event}"' not in written] == []


# Routes -----------------------------------------------------------------------------------------------------


def test_api_page_lists_the_routes_of_the_application_and_no_others() -> None:
    assert _documented_routes() == _served_routes()


def _documented_routes() -> set[tuple[str, str]]:
    ours, heading, admins = page("docs/api.md").partition(ADMIN_HEADING)
    assert heading
    found = set(METHOD_PATH.findall(ours))
    for method, path in METHOD_PATH.findall(admins):
        found.add((method, path if path.startswith("/admin/") else PREFIX + path))
    return found


def _served_routes() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = {(row.method, PREFIX + row.path) for row in ROUTES}
    runtime = build(load(ROOT / "config", _environment()))
    for route in routes(runtime):
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def _environment() -> dict[str, str]:
    return {
        "GATEWAY_DATABASE__URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
        "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
        "GATEWAY_SECRETS__MASTER_KEYS": "mQ7xV2pLw9TzR4kYc8NfH3sJb6GdA1eU",
        "GATEWAY_SECRETS__KEY_PEPPER": "zK5nW8rXe2BvM9tQj4LhD7yPf3CsG6oA",
    }


# Commands ---------------------------------------------------------------------------------------------------


def test_cli_page_lists_the_commands_and_no_others() -> None:
    assert sorted(_documented_commands()) == sorted(_commands())


@pytest.mark.parametrize("name", pages())
def test_commands_on_a_page_exist_with_their_flags(name: str) -> None:
    for line in code(page(name)):
        for noun, rest in COMMAND.findall(line):
            _check(f"{name}: {line}", noun, rest.split())


def test_commands_in_messages_of_the_source_exist() -> None:
    named = [(file, *found) for file in GATEWAY.rglob("*.py") for found in _quoted_commands(file)]
    assert len(named) > 5
    for file, noun, rest in named:
        _check(str(file), noun, rest.split())


def _quoted_commands(file: Path) -> list[tuple[str, str]]:
    """In the file's texts, put together where they are written in pieces."""
    texts = [
        node.value for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant)
    ]
    return [found for text in texts if isinstance(text, str) for found in QUOTED_COMMAND.findall(text)]


def _check(where: str, noun: str, words: list[str]) -> None:
    """`noun` and the verb after it are a command that has the flags among `words`."""
    commands = _commands()
    if not words and any(command.startswith(f"{noun} ") for command in commands):
        return  # a noun alone
    name = noun if noun in commands else " ".join([noun, *words[:1]])
    assert name in commands, f"{where}: there is no command '{name}'"
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in commands[name], f"{where}: '{name}' has no {word}"


def _documented_commands() -> set[str]:
    """`teams show TEAM` · `resume TEAM` are `teams show` and `teams resume`."""
    found = set()
    for row in table(page("docs/cli.md"), "command"):
        noun = ""
        for span in spans(row[0]):
            words = [word for word in span.split() if not word.isupper()]
            if len(words) == 2:
                noun = words[0]
            elif noun:
                words = [noun, *words]
            found.add(" ".join(words))
    return found


@cache
def _commands() -> dict[str, set[str]]:
    """Every command by its full name, with its flags."""
    root: Any = typer.main.get_command(command_line())
    shared = _flags(root)
    found = {}
    for noun, command in root.commands.items():
        below = getattr(command, "commands", None)
        for verb, one in (below or {"": command}).items():
            found[f"{noun} {verb}".strip()] = _flags(one) | shared | {"--help"}
    return found


def _flags(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in [*parameter.opts, *parameter.secondary_opts]}


# Sandbox ----------------------------------------------------------------------------------------------------


def test_sandbox_page_lists_the_faults_and_no_others() -> None:
    listed = [spans(row[0])[0] for row in table(page("docs/sandbox.md"), "fault")]
    assert sorted(listed) == sorted(fault.label for fault in CATALOGUE)


# Alerts -----------------------------------------------------------------------------------------------------


def test_alerts_page_lists_the_kinds_and_no_others() -> None:
    listed = [spans(row[0])[0] for row in table(page("docs/alerts.md"), "alert")]
    assert sorted(listed) == sorted(KINDS)
