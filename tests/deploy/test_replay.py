"""The Dockerfile and compose played through without docker, and the reader that does it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scripts.replay import compose
from scripts.replay.__main__ import impossible
from scripts.replay.dockerfile import DockerfileError, context, ignore_patterns, ignored, read
from tests.docs.pages import ROOT, page

ANSWERED = "answered 200, x-credits-charged: 8"


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.skipif(bool(impossible()), reason=f"Dockerfile and compose were not replayed: {impossible()}")
def test_the_image_is_built_migrates_serves_and_answers() -> None:
    before = set(Path(tempfile.gettempdir()).glob("pxg-replay-*"))
    done = subprocess.run([sys.executable, "-m", "scripts.replay"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "user 10001 writes to /tmp, /var/spool/pixapi-gateway alone",
        "migrate exited with 0",
        "gateway is healthy",
        ANSWERED,
        "gateway got SIGTERM and exited with 0",
    ):
        assert line in done.stdout
    assert set(Path(tempfile.gettempdir()).glob("pxg-replay-*")) <= before
    assert "pxg-replay-" not in Path("/proc/mounts").read_text()


def test_the_dockerfile_has_what_an_image_needs() -> None:
    build, image = read(page("Dockerfile"))
    assert build.name == "build"
    assert "slim" in image.image
    (copied,) = [step for step in image.steps if step.name == "COPY"]
    assert copied.flags == {"from": "build"}
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        step = image.last(name)
        assert step is not None
        assert step.exec_form()
    user = image.last("USER")
    assert user is not None
    assert user.rest == "10001:10001"
    installs = [step.rest for step in build.steps if step.name == "RUN" and " install --req" in step.rest]
    assert all("--require-hashes" in step for step in installs)
    assert (
        "/opt/gateway/bin/pip install --require-hashes --requirement requirements/runtime.lock" in installs[0]
    )


def test_the_image_serves_where_compose_and_health_check_look() -> None:
    image = read(page("Dockerfile"))[-1]
    command, expose, health = image.last("CMD"), image.last("EXPOSE"), image.last("HEALTHCHECK")
    assert command
    assert expose
    assert health
    assert command.exec_form() == ["serve", "--host", "0.0.0.0"]
    assert f":{expose.rest}/healthz" in health.rest
    assert f":{expose.rest}" in page("docker-compose.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nADD x y", "unknown instruction ADD"),
        ("RUN true", "before the first FROM"),
    ],
)
def test_what_the_reader_does_not_know_is_an_error(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        read(text)


def test_the_shell_form_is_no_exec_form() -> None:
    step = read("FROM a\nCMD serve --host 0.0.0.0")[0].last("CMD")
    assert step
    with pytest.raises(DockerfileError, match="exec form"):
        step.exec_form()


def test_arguments_and_continued_lines_are_put_in() -> None:
    (stage,) = read("ARG BASE=python:3\nFROM ${BASE} AS one\n# why\nENV A=1 \\\n    B=$A\n")
    assert (stage.image, stage.name) == ("python:3", "one")
    assert stage.steps[0].pairs() == {"A": "1", "B": "$A"}


def test_secrets_and_tests_stay_out_of_the_build() -> None:
    patterns = ignore_patterns(page(".dockerignore"))
    for path in (".env", ".git/config", "tests/conftest.py", ".venv/bin/python", "requirements/dev.lock"):
        assert ignored(path, patterns), path
    assert ignored("gateway/__pycache__/app.cpython-311.pyc", patterns)
    for path in ("gateway/app.py", "config/models.toml", "requirements/runtime.lock", "LICENSE"):
        assert not ignored(path, patterns), path
    assert {name.partition("/")[0] for name in context(ROOT)} == {
        *("gateway", "migrations", "config", "requirements"),
        *("pyproject.toml", "README.md", "LICENSE"),
    }


@pytest.mark.parametrize(("text", "value"), [("630s", 630.0), ("1m30s", 90.0), ("500ms", 0.5)])
def test_durations_are_composes(text: str, value: float) -> None:
    assert compose.seconds(text) == value


def test_variables_are_put_in_as_compose_does(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text('a: "${X:-7}"\nb: ["$$X", "${Y}"]\n')
    assert compose.load(file, {"Y": "y"}) == {"a": "7", "b": ["$X", "y"]}
