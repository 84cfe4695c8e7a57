"""The README's shell, Python and JavaScript blocks, as they stand there, in a clean copy beside a real quickstart.

What a reader replaces is replaced: the key that was printed, and the port, so that two runs can share a machine. Blocks
that begin with "# Not run by our tests" are left out; tests/docs/test_readme.py compares them with their files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks, page
from tests.docs.test_readme import NOT_RUN
from tests.e2e.clients.test_openai_node import node_modules as node_modules  # the fixture
from tests.e2e.pictures import fetch, is_mp4, png_size
from tests.e2e.started_quickstart import bash, data_folder, free_port

START_SECONDS = 240.0  # with an empty cache every package is downloaded
RUN_SECONDS = 90.0
STOP_SECONDS = 20.0
BLOCKS = blocks(page("README.md"), "sh")
# An answer that is no success fails the block, as a reader would notice it.
STRICT = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'

pytestmark = [pytest.mark.long, pytest.mark.timeout(START_SECONDS + 2 * RUN_SECONDS)]


@dataclass(frozen=True)
class Copy:
    """A clean copy of the project in which `make run` serves; `page` is what it printed."""

    folder: Path
    port: int
    page: str

    @property
    def key(self) -> str:
        (found,) = set(re.findall(r"pxg_\w+", self.page))
        return str(found)

    def as_read(self, block: str) -> str:
        """The block as its reader runs it."""
        return block.replace("pxg_…", self.key).replace(":8080", f":{self.port}")

    def run(self, *command: str, text: str = "", **environment: str) -> str:
        """What a program prints that reads `text`; it must succeed."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        done = subprocess.run(
            command,
            input=text,
            cwd=self.folder,
            env={**own, "NO_PROXY": "127.0.0.1", **environment},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with data_folder() as folder:
        clone = folder / "clone"
        _copy(clone)
        with _served(clone, BLOCKS[0]) as served:
            yield served


def _copy(clone: Path) -> None:
    """Every file that git knows or would take, and nothing that was built, installed or generated here."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("README's blocks are not run: this is no git checkout")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)


@contextmanager
def _served(clone: Path, block: str) -> Iterator[Copy]:
    """`make run` until the block ends; it must have stopped by then, and everything it started with it."""
    port = free_port()
    assert block == "make run\n"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "PIXAPI_"))}
    output = clone.parent / "output"
    with output.open("wb") as stream:
        command = f"exec {block.strip()} PORT={port} PYTHON={sys.executable}"
        child = subprocess.Popen(
            ["sh", "-c", command],
            cwd=clone,
            env={**own, "NO_PROXY": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        began = time.monotonic()
        while "Ctrl-C" not in output.read_text():
            assert child.poll() is None, output.read_text()
            assert time.monotonic() - began < START_SECONDS, output.read_text()
            time.sleep(0.1)
        print(f"make run in a clean copy: {time.monotonic() - began:.1f} s to the printed page")
        yield Copy(clone, port, output.read_text())
    finally:
        os.killpg(child.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        child.wait(STOP_SECONDS)


def test_the_pasted_line_makes_a_picture(copy: Copy) -> None:
    (curl,) = [line for line in copy.page.splitlines() if line.startswith("curl ")]
    url = json.loads(bash(curl))["data"][0]["url"]
    assert png_size(fetch(url)) == (256, 256)


@pytest.mark.parametrize("block", BLOCKS[2:], ids=lambda block: block.partition("\n")[0])
def test_a_shell_block_runs(copy: Copy, block: str) -> None:
    if block.startswith(NOT_RUN):
        pytest.skip(block.partition("\n")[0].removeprefix("# "))
    print(copy.run("bash", text=STRICT + copy.as_read(block)))


def test_the_curl_block_makes_edits_and_waits(copy: Copy) -> None:
    printed = copy.run("bash", text=STRICT + copy.as_read(BLOCKS[1]))
    edit, task, account = _objects(printed)
    assert png_size((copy.folder / "cup.png").read_bytes())
    assert png_size(fetch(edit["data"][0]["url"]))
    assert task["status"] == "completed"
    assert account["team"]["slug"] == "demo"


def _objects(text: str) -> list[Any]:
    """JSON objects that stand one behind the other."""
    found, place = [], 0
    while text[place:].strip():
        one, place = json.JSONDecoder().raw_decode(
            text, place + len(text[place:]) - len(text[place:].lstrip())
        )
        found.append(one)
    return found


def test_the_python_block_runs(copy: Copy) -> None:
    (block,) = blocks(page("README.md"), "python")
    picture, video = copy.run(sys.executable, "-", text=copy.as_read(block)).split()
    assert png_size(fetch(picture))
    assert is_mp4(fetch(video))


def test_the_javascript_block_runs(copy: Copy, node_modules: Path) -> None:
    (block,) = blocks(page("README.md"), "javascript")
    script = copy.folder.parent / "block.mjs"
    script.write_text(copy.as_read(block))
    (copy.folder.parent / "node_modules").symlink_to(node_modules)
    picture, video = copy.run("node", str(script)).split()
    assert png_size(fetch(picture))
    assert is_mp4(fetch(video))
