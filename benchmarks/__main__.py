"""`python -m benchmarks NAME`: measures this machine and prints a table; only ratios of one run mean anything.

`history` measures nothing: it fills a database with invented use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from benchmarks import history, ledger, lists, pages, polls

BENCHMARKS: dict[str, Callable[[Sequence[str]], None]] = {
    "history": history.main,
    "ledger": ledger.main,
    "lists": lists.main,
    "pages": pages.main,
    "polls": polls.main,
    "waiting": polls.main_waiting,
}


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in BENCHMARKS:
        print(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    BENCHMARKS[arguments[0]](arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
