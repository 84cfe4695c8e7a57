"""The code that the dashboard shows to be copied, in every language installed here: run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from gateway.pages.snippets import LANGUAGES, Language, snippets
from tests.e2e.clients.conftest import Stage
from tests.e2e.clients.test_openai_node import node_modules as node_modules  # the fixture
from tests.e2e.clients.test_reference_examples import LANGUAGES as INSTALLED
from tests.e2e.clients.test_reference_examples import RUN_SECONDS, skip_unless_installed
from tests.e2e.pictures import fetch, png_size

RUN_AS: dict[Language, str] = {
    "curl": "bash",
    "python": "python",
    "go": "go",
    "java": "java",
    "php": "php",
}


def test_no_language_is_forgotten() -> None:
    assert set(LANGUAGES) == {*RUN_AS, "javascript"}


def environment(language: Language, stage: Stage) -> dict[str, str]:
    """What the snippet of the environment sets, as a shell reads it."""
    lines = snippets(language, stage.gateway.base, stage.key).environment
    found = dict(re.findall(r'^export (\w+)="([^"]*)"$', lines, re.MULTILINE))
    assert set(found) == {"OPENAI_BASE_URL", "OPENAI_API_KEY"}
    return found


def run(language: Language, code: str, stage: Stage, folder: Path) -> str:
    name = RUN_AS.get(language, language)
    how = INSTALLED[name]
    skip_unless_installed(name, how)
    (folder / how.name).write_text(code)
    done = subprocess.run(
        [*how.command, how.name],
        cwd=folder,
        env={**os.environ, **environment(language, stage)},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("language", RUN_AS)
def test_an_image(stage: Stage, tmp_path: Path, language: Language) -> None:
    said = run(language, snippets(language, stage.gateway.base).image, stage, tmp_path)
    assert png_size(fetch(url_in(said))) == (256, 256)


@pytest.mark.long
@pytest.mark.parametrize("language", [one for one in RUN_AS if one != "curl"])
def test_a_task(stage: Stage, tmp_path: Path, language: Language) -> None:
    said = run(language, snippets(language, stage.gateway.base).task, stage, tmp_path)
    assert "completed" in said
    assert png_size(fetch(url_in(said))) == (256, 256)


def test_a_task_by_curl(stage: Stage, tmp_path: Path) -> None:
    submit, ask = snippets("curl", stage.gateway.base).task.split("\n\n")
    task = re.search(r'"id": ?"(task_\w+)"', run("curl", submit, stage, tmp_path))
    assert task is not None
    said = ""
    for _ in range(5):
        said = run("curl", f"TASK_ID={task[1]}\n{ask}", stage, tmp_path)
        if '"completed"' in said:
            break
    assert png_size(fetch(url_in(said))) == (256, 256)


@pytest.mark.long
@pytest.mark.parametrize("what", ["image", "task"])
def test_javascript(stage: Stage, tmp_path: Path, node_modules: Path, what: str) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules)
    said = run("javascript", getattr(snippets("javascript", stage.gateway.base), what), stage, tmp_path)
    assert png_size(fetch(url_in(said))) == (256, 256)


def url_in(said: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:[^\s\"']+", said.replace("\\/", "/"))
    assert found is not None, said
    return found[0]
