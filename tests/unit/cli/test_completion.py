"""Shells complete commands, flags and words, as the installed script asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPLETE = "_PIXAPI_GATEWAY_COMPLETE"


def _ask(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pixapi-gateway upstr", {"upstream-keys"}),
        ("pixapi-gateway upstream-keys ena", {"enable"}),
        ("pixapi-gateway secrets ", {"rotate", "verify"}),
        ("pixapi-gateway teams create --time", {"--time-zone"}),
        ("pixapi-gateway quotas set --period ", {"day", "week", "month", "total"}),
        ("pixapi-gateway usage --by team,m", {"team,model"}),
    ],
)
def test_bash_is_told_the_words(line: str, words: set[str]) -> None:
    typed = line.split(" ")
    found = _ask(**{COMPLETE: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(typed) - 1)})
    assert set(found.split()) == words


def test_zsh_is_told_the_words_with_their_help() -> None:
    found = _ask(**{COMPLETE: "complete_zsh", "_TYPER_COMPLETE_ARGS": "pixapi-gateway secr"})
    assert found.startswith('_arguments \'*: :(("secrets":"Master keys and peppers')


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _pixapi_gateway_completion pixapi-gateway"),
        ("zsh", "compdef _pixapi_gateway_completion pixapi-gateway"),
    ],
)
def test_the_script_of_a_shell_is_printed(shell: str, line: str) -> None:
    assert line in _ask(**{COMPLETE: f"source_{shell}"})


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes_with_the_script(tmp_path: Path) -> None:
    """The script is sourced and its function called as bash calls it for <TAB>."""
    command = tmp_path / "pixapi-gateway"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
    command.chmod(0o755)
    program = (
        f'eval "$({COMPLETE}=source_bash pixapi-gateway)"\n'
        "COMP_WORDS=(pixapi-gateway upstr)\nCOMP_CWORD=1\n"
        'function=$(complete -p pixapi-gateway | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        '$function pixapi-gateway upstr pixapi-gateway\necho "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("upstream-keys\n", "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize("line", ["pixapi-gateway ", "pixapi-gateway teams ", "pixapi-gateway keys issue --"])
def test_zsh_itself_reads_what_it_is_told(line: str) -> None:
    """The words and their help, with their quotes and backticks, are one argument of `_arguments` and run nothing."""
    told = _ask(**{COMPLETE: "complete_zsh", "_TYPER_COMPLETE_ARGS": line})
    done = subprocess.run(
        ["zsh", "-fc", '_arguments() { print -r -- "$#" }; eval $1', "zsh", told],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
