"""What wrk is told, and what it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.compare.wrk import Shot, lines, lua, parse, script

OUTPUT = """Running 2s test @ http://127.0.0.1:1
  1 threads and 64 connections
Requests/sec:   1000.00
BENCH {"requests":2100,"us":2000000,"status":90,"socket":10,"p50":15250,"p99":40100}
"""


def test_parse() -> None:
    found = parse(OUTPUT)
    assert (found.calls, found.rate, found.p50, found.p99, found.failed) == (2010, 1005.0, 15.25, 40.1, 100)


def test_parse_says_what_went_wrong() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_nothing_answered() -> None:
    found = parse('BENCH {"requests":0,"us":0,"status":0,"socket":3,"p50":0,"p99":0}')
    assert (found.calls, found.rate, found.failed) == (0, 0.0, 3)


def test_lines_are_every_path_with_every_token() -> None:
    assert lines(Shot("GET", ["/a"])) == ["/a"]
    assert lines(Shot("GET", ["/a", "/b"], tokens=["k"])) == ["/a k", "/b k"]
    assert lines(Shot("GET", ["/a"], tokens=["k", "l"])) == ["/a k", "/a l"]
    assert lines(Shot("GET", ["/a", "/b"], tokens=["k", "l", "m"])) == ["/a k", "/b l", "/a m"]


def test_lua_text_may_hold_brackets_and_quotes() -> None:
    assert lua("plain") == "[[plain]]"
    assert lua('{"a":[[1]]}') == '[=[{"a":[[1]]}]=]'
    assert lua("ends]") == '"ends]"'


@pytest.mark.skipif(shutil.which("luajit") is None and shutil.which("lua") is None, reason="no Lua here")
def test_script_is_lua(tmp_path: Path) -> None:
    program = tmp_path / "shot.lua"
    program.write_text(script(Shot("POST", ["/a"], '{"a":[[1]]}', {"x-y": "z"}, ["k"]), tmp_path / "lines"))
    subprocess.run([shutil.which("luajit") or shutil.which("lua") or "", str(program)], check=True)


def test_script_has_what_is_sent() -> None:
    text = script(Shot("POST", ["/a"], "body", {"x-y": "z"}), Path("lines.txt"))
    assert "wrk.method, wrk.body = [[POST]], body" in text
    assert "[ [[x-y]] ] = [[z]]" in text
    assert "%%" not in text
