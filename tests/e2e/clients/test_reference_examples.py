"""The examples of Pixapi's own reference, in every language installed here: base URL and key changed, no more."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.clients.conftest import Stage
from tests.e2e.pictures import fetch, png_size

REFERENCE = Path(__file__).with_name("reference.md")
PIXAPI = "https://api.pixapi.ai"
RUN_SECONDS = 90  # a first `go run` builds the standard library


@dataclass(frozen=True)
class Language:
    """How an example of this language is run: `command` on the file `name`; `module` is what must be there too."""

    program: str
    name: str
    command: tuple[str, ...]
    module: str | None = None


LANGUAGES = {
    "bash": Language("curl", "example.sh", ("bash",)),
    "python": Language(sys.executable, "example.py", (sys.executable,), "requests"),
    "javascript": Language("node", "example.mjs", ("node",)),
    "go": Language("go", "example.go", ("go", "run")),
    "java": Language("java", "PixapiExample.java", ("java",)),
    "php": Language("php", "example.php", ("php", "-d", "display_errors=stderr"), "curl"),
}


def examples() -> dict[tuple[str, str], str]:
    """The text of each example by language and what it does."""
    found = re.findall(r"^```(\w+) (\w+)\n(.*?)^```$", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    return {(language, purpose): text for language, purpose, text in found}


EXAMPLES = examples()


def test_every_language_of_the_reference_is_here() -> None:
    assert {(language, "generate") for language in LANGUAGES} | {("bash", "edit")} == set(EXAMPLES)
    assert all(text.count(PIXAPI) == 1 for text in EXAMPLES.values())


@pytest.mark.parametrize(("language", "purpose"), EXAMPLES)
def test_example(stage: Stage, photos: list[bytes], tmp_path: Path, language: str, purpose: str) -> None:
    how = LANGUAGES[language]
    skip_unless_installed(language, how)
    file = tmp_path / how.name
    file.write_text(EXAMPLES[language, purpose].replace(PIXAPI, stage.gateway.base))
    (tmp_path / "product.png").write_bytes(photos[0])
    environment = {**os.environ, "PIXAPI_KEY": stage.key}
    done = subprocess.run(
        [*how.command, file.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert png_size(fetch(printed_url(done.stdout))) == (256, 256)


def skip_unless_installed(language: str, how: Language) -> None:
    why = f"the reference's {language} example is not tried:"
    if shutil.which(how.program) is None:
        pytest.skip(f"{why} {how.program} is not installed")
    if how.module is None:
        return
    if language == "php":
        modules = subprocess.run(["php", "-m"], capture_output=True, text=True, check=True).stdout.split()
        there = how.module in modules
    else:
        there = importlib.util.find_spec(how.module) is not None
    if not there:
        pytest.skip(f"{why} {language}'s {how.module} is not installed")


def printed_url(output: str) -> str:
    """The image's address: the examples print it alone, or the whole answer."""
    text = output.strip()
    url = str(json.loads(text)["data"][0]["url"]) if text.startswith("{") else text
    assert urlsplit(url).hostname == "127.0.0.1"
    return url
