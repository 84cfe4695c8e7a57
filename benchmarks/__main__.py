"""`python -m benchmarks [NAME]`: measures this machine and prints a table; only ratios of one run mean anything.

Without a name `compare` runs with all its scenarios.

`history` measures nothing: it fills a database with invented use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from benchmarks import history, ledger, lists, pages, polls
from benchmarks.compare import command as compare
from benchmarks.compare import profiling

BENCHMARKS: dict[str, Callable[[Sequence[str]], None]] = {
    "compare": compare.main,
    "history": history.main,
    "ledger": ledger.main,
    "lists": lists.main,
    "pages": pages.main,
    "polls": polls.main,
    "profile": profiling.main,
    "waiting": polls.main_waiting,
}


def main(arguments: Sequence[str]) -> int:
    arguments = arguments or ["compare"]
    if arguments[0] not in BENCHMARKS:
        print(f"usage: python -m benchmarks [{{{','.join(BENCHMARKS)}}} [--help]]", file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    BENCHMARKS[arguments[0]](arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
