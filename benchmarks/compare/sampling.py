"""Runs the gateway's command line and looks at its stack every few milliseconds of CPU, between two SIGUSR1.

`python -m benchmarks.compare.sampling FILE serve`: the counts are written to FILE at the second signal. Only the
main thread is seen, where the event loop runs; time inside C belongs to the Python frame that called it.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY = 0.001  # seconds of CPU; the kernel makes it a tick where its clock is coarser
OWN = "gateway"
Place = tuple[str, str]  # the innermost module of the gateway (or ""), and the innermost package of all

counts: Counter[Place] = Counter()
"""How often each place was seen."""


def place(modules: list[str]) -> Place:
    """Of a stack's module names, innermost first."""
    own = next((name for name in modules if name.split(".")[0] == OWN), "")
    first = modules[0] if modules else "?"
    return own, OWN if first.split(".")[0] == OWN else first.split(".")[0]


def look(_: int, frame: FrameType | None) -> None:
    modules = []
    while frame is not None:
        modules.append(str(frame.f_globals.get("__name__", "?")))
        frame = frame.f_back
    counts[place(modules)] += 1


def main() -> None:
    output = Path(sys.argv[1])
    running = False

    def toggle(_: int, __: FrameType | None) -> None:
        nonlocal running
        running = not running
        signal.setitimer(signal.ITIMER_PROF, EVERY if running else 0, EVERY)
        if not running:
            half = output.with_suffix(".half")
            half.write_text(json.dumps([[own, package, count] for (own, package), count in counts.items()]))
            half.rename(output)

    signal.signal(signal.SIGPROF, look)
    signal.signal(signal.SIGUSR1, toggle)
    sys.argv = [OWN, *sys.argv[2:]]
    runpy.run_module(OWN, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
