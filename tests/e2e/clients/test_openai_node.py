"""The official OpenAI SDK for Node; skipped, saying why, where node or its package cannot be had."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients.conftest import Stage
from tests.e2e.pictures import fetch, is_mp4, png_size

PACKAGE = "openai@6.49.0"  # runs on Node 20 and newer
OLDEST_NODE = 20
SCRIPT = Path(__file__).with_name("sdk.cjs")
NPM_SECONDS = 60
MODEL = "gemini-3-pro-image-preview"

Run = Callable[[str], Any]


@pytest.fixture(scope="session")
def node_modules(pytestconfig: pytest.Config) -> Path:
    """The folder with the SDK, installed once into pytest's cache and found there from then on."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the Node SDK is not tried: node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"the Node SDK is not tried: node {version.strip()} is older than {OLDEST_NODE}")
    assert pytestconfig.cache is not None
    home = pytestconfig.cache.mkdir("node-sdk") / PACKAGE
    if not home.exists():
        _install(home)
    return home / "node_modules"


def _install(home: Path) -> None:
    """npm into a folder of our own, then one rename: two test processes may come here at once."""
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=home.parent))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS)
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        if done.returncode != 0:
            pytest.skip(f"the Node SDK is not tried: npm cannot install {PACKAGE}: {why}")
        with contextlib.suppress(OSError):  # the other process was first
            folder.rename(home)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the Node SDK is not tried: npm did not install {PACKAGE} within {NPM_SECONDS} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run(stage: Stage, node_modules: Path, photos: list[bytes]) -> Run:
    """Runs a step of sdk.cjs and returns what it printed."""
    environment = {
        **os.environ,
        "NODE_PATH": str(node_modules),
        "OPENAI_BASE_URL": stage.base_url,
        "OPENAI_API_KEY": stage.key,
        **{f"PHOTO_{number}": base64.b64encode(photo).decode() for number, photo in enumerate(photos)},
    }

    def run(step: str) -> Any:
        done = subprocess.run(
            ["node", SCRIPT, step], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_generate(run: Run) -> None:
    images = run("generate")["data"]
    assert [png_size(fetch(image["url"])) for image in images] == [(256, 256)] * 2


@pytest.mark.parametrize(("step", "prompt", "count"), [("edit-one", "One", 1), ("edit-three", "Three", 3)])
def test_edit(run: Run, stage: Stage, photos: list[bytes], step: str, prompt: str, count: int) -> None:
    png_size(fetch(run(step)["data"][0]["url"]))
    (entry,) = stage.sent(f"{prompt}, from Node")
    files = [(part["name"], part["sha256"]) for part in entry["parts"] if part["filename"] is not None]
    field = "image" if count == 1 else "image[]"
    assert files == [(field, hashlib.sha256(photo).hexdigest()) for photo in photos[:count]]


def test_models(run: Run) -> None:
    found = run("models")
    assert {MODEL, "veo"} <= set(found["ids"])
    assert found["alias"] == MODEL


def test_video(run: Run) -> None:
    done = run("video")
    assert (done["status"], done["credits_cost"]) == ("completed", 4)
    assert is_mp4(fetch(done["result"]["data"][0]["url"]))


def test_a_refusal_is_the_sdks_own_class(run: Run) -> None:
    error = run("wrong-field")
    assert (error["class"], error["status"]) == ("BadRequestError", 400)
    assert error["type"] == "invalid_request_error"
    assert error["requestID"].startswith("req_")


def test_sdk_never_pays_twice_for_an_unknown_outcome(run: Run, stage: Stage) -> None:
    error = run("unknown-outcome")
    assert (error["class"], error["status"]) == ("InternalServerError", 502)
    assert [entry["executed"] for entry in stage.sent("Lost, from Node")] == [True]


@pytest.mark.long
def test_sdk_that_gives_up_early_gets_the_one_answer(run: Run, stage: Stage) -> None:
    for answer, prompt in zip(run("gives-up-early"), ("Hasty,", "Hasty edit,"), strict=True):
        png_size(fetch(answer["data"][0]["url"]))
        assert len(stage.sent(f"{prompt} from Node [fault:delay=2.5]")) == 1
