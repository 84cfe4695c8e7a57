"""CHANGELOG, decisions and dependencies agree with the project, and no page leads nowhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, code, page, pages, rows

PROJECT = tomllib.loads(page("pyproject.toml"))
DECISIONS = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
HEADINGS = ["## Context", "## Decision", "## Consequences", "## Alternatives"]
# Addresses a page may name. Anything else would be somebody's machine or service.
HOSTS = re.compile(
    r"127\.0\.0\.1|localhost|api\.pixapi\.ai|([a-z-]+\.)*example\.com|10\.0\.0\.1|keepachangelog\.com|semver\.org"
)
# Public pages that pages about others quote.
SOURCES = {"github.com", "docs.litellm.ai", "docs.newapi.pro", "portkey.ai", "docs.getbifrost.ai"}
QUOTING = {"README.md", "README.zh.md", "docs/migrating.md"}
SYSTEM_FOLDERS = {"var", "usr", "etc", "opt", "run", "srv", "tmp"}
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def requirement_names(requirements: list[str]) -> list[str]:
    return [match[0] for one in requirements if (match := re.match(r"[A-Za-z0-9-]+", one))]


# Versions and targets ---------------------------------------------------------------------------------------


def test_changelog_begins_with_the_version_of_the_project() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", page("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"]


def test_a_shared_environment_is_never_made_anew_through_a_link(tmp_path: Path) -> None:
    """`python -m venv --clear` follows a link and empties what it leads to, for everybody who uses it."""
    shared, project = tmp_path / "shared", tmp_path / "project"
    for name in ("scripts/setup.sh", "requirements/dev.lock", "pyproject.toml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    (shared / "bin").mkdir(parents=True)
    (shared / "pyvenv.cfg").write_text("home = elsewhere\n")
    (project / ".venv").symlink_to(shared)
    done = subprocess.run(
        ["sh", "scripts/setup.sh", "dev"], cwd=project, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "is a link" in done.stderr
    assert sorted(path.name for path in shared.iterdir()) == ["bin", "pyvenv.cfg"]


@pytest.mark.parametrize("name", pages())
def test_targets_a_page_names_exist(name: str) -> None:
    named = {found for line in code(page(name)) for found in re.findall(r"(?:^|\s)make ([a-z-]+)", line)}
    assert named <= set(TARGET.findall(page("Makefile")))


def test_python_on_the_pages_is_python() -> None:
    examples = [block for name in pages() for block in blocks(page(name), "python")]
    assert examples
    for example in examples:
        ast.parse(example)


# Decisions --------------------------------------------------------------------------------------------------


def test_index_links_every_decision_once() -> None:
    linked = [target for row in rows(page("docs/adr/README.md")) for target in LINK.findall(row[0])]
    assert linked == DECISIONS
    assert [int(name[:4]) for name in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_has_its_parts(name: str) -> None:
    text = page(f"docs/adr/{name}")
    title = re.match(r"# (\d{4}): (.+)\n\nStatus: (accepted|superseded) ", text)
    assert title is not None
    assert title[1] == name[:4]
    assert re.findall(r"^## .+$", text, re.MULTILINE) == HEADINGS
    index = next(row for row in rows(page("docs/adr/README.md")) if name in row[0])
    assert index[1] == title[2]


def test_decisions_named_in_the_source_exist() -> None:
    named = {
        number
        for path in (ROOT / "gateway").rglob("*.py")
        for number in re.findall(r"\bADR (\d{4})\b", path.read_text("utf-8"))
    }
    assert named
    assert named <= {name[:4] for name in DECISIONS}


# Dependencies -----------------------------------------------------------------------------------------------


def test_every_dependency_is_explained_and_no_other() -> None:
    project = PROJECT["project"]
    wanted = set(requirement_names(project["dependencies"]))
    for extra in project["optional-dependencies"].values():
        wanted |= set(requirement_names(extra))
    for group in PROJECT["dependency-groups"].values():
        wanted |= set(requirement_names([one for one in group if isinstance(one, str)]))
    listed = [row[0] for row in rows(page("docs/dependencies.md")) if row[-1] not in ("licence", row[1])]
    assert sorted(listed) == sorted(wanted)


def test_dependencies_stand_in_their_part() -> None:
    text = page("docs/dependencies.md")
    at_run_time = text[text.index("## At run time") : text.index("## Extras")]
    listed = [row[0] for row in rows(at_run_time)][1:]
    assert listed == sorted(requirement_names(PROJECT["project"]["dependencies"]))


# Links and addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", pages())
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    targets = [target.partition("#")[0] for target in LINK.findall(page(name)) if "://" not in target]
    missing = [folder / target for target in targets if target and not (folder / target).exists()]
    assert {os.path.relpath(path, ROOT) for path in missing} == set()


@pytest.mark.parametrize("name", pages())
def test_pages_name_no_strange_host(name: str) -> None:
    found = re.findall(r"https?://[^\s`\"'<>)|,]+", page(name))
    hosts = {urlsplit(address).hostname or "" for address in found}
    quoted = SOURCES if name in QUOTING else set()
    assert {host for host in hosts if not HOSTS.fullmatch(host)} - quoted == set()


@pytest.mark.parametrize("name", pages())
def test_pages_name_no_folder_of_a_machine(name: str) -> None:
    own = {"/home/", "/root/", "/Users/", f"{ROOT}/", f"{Path.home()}/"}
    if ROOT.parts[1] not in SYSTEM_FOLDERS:
        own.add(f"/{ROOT.parts[1]}/")
    paths = re.findall(r"(?<![\w.}:/])/[\w.-]+/[^\s`]*", page(name))
    assert [path for path in paths if path.startswith(tuple(own - {"//"}))] == []
