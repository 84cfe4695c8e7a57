"""The load of small calls: wrk, one thread, closed loop, told what to send by a Lua script."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "BENCH "
TIMEOUT = 30  # seconds a call may take before wrk counts it as failed
_SCRIPT = """
local requests, body = {}, %(body)s
function init(args)
   wrk.method, wrk.body = %(method)s, body
   for name, value in pairs({%(headers)s}) do wrk.headers[name] = value end
   for line in io.lines(%(lines)s) do
      local path, token = line:match("^(%%S+) ?(%%S*)$")
      if token ~= "" then wrk.headers["authorization"] = "Bearer " .. token end
      requests[#requests + 1] = wrk.format(nil, path)
   end
   math.randomseed(os.time())
end
function request() return requests[#requests == 1 and 1 or math.random(#requests)] end
function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format('%(mark)s{"requests":%%d,"us":%%d,"status":%%d,"socket":%%d,"p50":%%d,"p99":%%d}\\n',
      summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
      latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """What is sent again and again: one of `paths` by one of `tokens`, drawn anew for each call."""

    method: str
    paths: Sequence[str]
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tokens: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: calls a second that had a 2xx or 3xx, milliseconds, and calls that failed."""

    calls: int
    rate: float
    p50: float
    p99: float
    failed: int


def parse(output: str) -> Load:
    """The line our script wrote; ValueError when there is none."""
    line = next((one for one in output.splitlines() if one.startswith(MARK)), None)
    if line is None:
        raise ValueError(f"wrk wrote no result:\n{output[-1000:]}")
    found = json.loads(line.removeprefix(MARK))
    good = max(0, found["requests"] - found["status"])
    seconds = found["us"] / 1e6
    return Load(
        calls=good,
        rate=good / seconds if seconds else 0.0,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        failed=found["status"] + found["socket"],
    )


def lua(text: str) -> str:
    """A Lua literal that is this text."""
    for level in range(10):
        equals = "=" * level
        if f"]{equals}]" not in text and not text.endswith(("]", f"]{equals}")):
            return f"[{equals}[{text}]{equals}]"
    return json.dumps(text)


def script(shot: Shot, lines: Path) -> str:
    """The Lua program; `lines` will hold a path and a token a line."""
    return _SCRIPT % {
        "body": "nil" if shot.body is None else lua(shot.body),
        "method": lua(shot.method),
        "headers": ", ".join(f"[ {lua(name)} ] = {lua(value)}" for name, value in shot.headers.items()),
        "lines": lua(str(lines)),
        "mark": MARK,
    }


def lines(shot: Shot) -> list[str]:
    """Every path with every token; with many of both each token has one path."""
    if len(shot.paths) > 1 and len(shot.tokens) > 1:
        longest = max(len(shot.paths), len(shot.tokens))
        pairs = [(shot.paths[n % len(shot.paths)], shot.tokens[n % len(shot.tokens)]) for n in range(longest)]
    else:
        pairs = [(path, token) for path in shot.paths for token in shot.tokens or [""]]
    return [f"{path} {token}".rstrip() for path, token in pairs]


def run(base: str, shot: Shot, connections: int, seconds: float, folder: Path) -> Load:
    """Sends for whole seconds (rounded up) over so many connections; takes as long, and at most a minute longer."""
    listed, program = folder / "shots.txt", folder / "shot.lua"
    listed.write_text("\n".join(lines(shot)) + "\n")
    program.write_text(script(shot, listed))
    whole = max(1, math.ceil(seconds))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{whole}s",
        f"--timeout={TIMEOUT}s",
        "-s",
        str(program),
        base,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60, check=False)
    return parse(done.stdout + done.stderr)
