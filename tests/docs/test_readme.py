"""The two READMEs say the same, show what is printed, and lead to the index, which leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.cli.demo import Demo
from gateway.cli.quickstart import Started, Upstream
from gateway.settings.model import FIELDS
from tests.docs.pages import DOCS, ROOT, blocks, page, rows, spans, table

READMES = ["README.md", "README.zh.md"]
NOT_RUN = "# Not run by our tests"
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) .+$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VERSION = re.search(r'^version = "(.+)"$', page("pyproject.toml"), re.MULTILINE)


def test_readme_shows_what_the_quickstart_prints() -> None:
    upstream = Upstream("http://127.0.0.1:42665", "sandbox", "sk_…")
    started = Started("http://127.0.0.1:8080", "pxa_…", Demo("pxg_…", "1000"), upstream)
    printed = started.page(Path(".pixapi-gateway")).strip().splitlines()
    *shown, curl = blocks(page("README.md"), "text")[0].splitlines()
    assert shown == printed[: len(shown)]
    assert printed[len(shown)].startswith(curl.removesuffix("…"))
    assert VERSION is not None
    assert shown[0].split()[2] == VERSION[1]


def test_readme_begins_with_one_command() -> None:
    assert blocks(page("README.md"))[0] == "make run\n"
    assert "make run" not in spans(page("README.md").split("## Quick start")[0])


def test_readme_keeps_its_order() -> None:
    wanted = ["Quick start", "Point your SDK here", "Features", "Configuration", "Operations", "Benchmarks"]
    wanted += ["How it compares", "Security", "Licence"]
    assert re.findall(r"^## (.+)$", page("README.md"), re.MULTILINE) == wanted
    assert len(page("README.md").splitlines()) <= 250


# Two languages ----------------------------------------------------------------------------------------------


def test_both_have_the_same_code() -> None:
    english, chinese = (BLOCK.findall(page(name)) for name in READMES)
    assert chinese == english


def test_both_have_the_same_parts() -> None:
    english, chinese = (_parts(page(name)) for name in READMES)
    assert chinese == english


def _parts(text: str) -> list[tuple[str, int, int, int]]:
    """Of every heading: its level, and the table rows, list items and blocks below it."""
    text = BLOCK.sub("<block>", text)
    found = []
    for level, below in zip(HEADING.findall(text), HEADING.split(text)[2::2], strict=True):
        items = len(re.findall(r"^- ", below, re.MULTILINE))
        found.append((level, len(list(rows(below))), items, below.count("<block>")))
    return found


def test_both_lead_to_the_same_places_and_to_each_other() -> None:
    english, chinese = (sorted(LINK.findall(page(name))) for name in READMES)
    assert "README.zh.md" in english
    assert "README.md" in chinese
    assert set(english) - {"README.zh.md"} == set(chinese) - {"README.md"}


def test_both_show_the_same_settings_with_their_defaults() -> None:
    english, chinese = (
        [row[:2] for header in ("setting", "设置") for row in table(page(name), header)] for name in READMES
    )
    assert chinese == english
    assert [spans(row[0])[0] for row in english if spans(row[0])[0] not in FIELDS] == []
    reference = {spans(row[0])[0]: row[2] for row in table(page("docs/configuration.md"), "Setting")}
    for name, _, default, _ in table(page("README.md"), "setting"):
        assert reference[spans(name)[0]] == default


# Blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READMES)
def test_every_block_has_a_language(name: str) -> None:
    languages = {language for language, _ in BLOCK.findall(page(name))}
    assert languages == {"sh", "text", "python", "javascript"}


def test_blocks_that_are_not_run_are_about_docker_and_fit_its_file() -> None:
    """tests/e2e/test_readme.py runs every other one."""
    marked = [block for block in blocks(page("README.md"), "sh") if block.startswith(NOT_RUN)]
    assert len(marked) == 1
    services = yaml.safe_load(page("docker-compose.yml"))["services"]
    commands = re.findall(r"^docker compose (.+)$", marked[0], re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["up", "exec"]
    assert "build" in services["gateway"]
    assert commands[1].split()[1:3] == ["-T", "gateway"]
    assert (ROOT / "Dockerfile").exists()


# The index --------------------------------------------------------------------------------------------------


def test_the_index_lists_every_page_once() -> None:
    listed = [target for row in rows(page("docs/README.md")) for target in LINK.findall(row[0])]
    assert sorted(listed) == sorted(set(listed))
    there = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert there | {"adr/README.md"} <= set(listed)
    assert all(len(row[1]) > 10 for row in rows(page("docs/README.md")) if LINK.search(row[0]))


def test_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in LINK.findall(page("README.md"))
