"""The pages of several worker processes as one page for Prometheus. Pure.

Every series of a process is told apart by a label, `worker`: a counter that starts again with a replaced process is
then a reset of that series alone, which `rate()` knows, and a process that did not answer is a gap and not a fall.
"""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "worker"
_HEAD = "# HELP "


def merged(pages: Mapping[int, str]) -> str:
    """`pages` by the number of their worker, in Prometheus's text format: each metric once, with all its series."""
    families: dict[str, list[str]] = {}
    for worker, page in sorted(pages.items()):
        lines: list[str] = []
        for line in page.splitlines():
            if line.startswith(_HEAD):
                name = line[len(_HEAD) :].split(" ", 1)[0]
                lines = families.setdefault(name, [])
                if not lines:
                    lines.append(line)
            elif line.startswith("#"):
                if len(lines) == 1:
                    lines.append(line)
            elif line:
                lines.append(labelled(line, worker))
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def labelled(sample: str, worker: int) -> str:
    """`name{a="b"} 1` → `name{worker="0",a="b"} 1`."""
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f'{name}{{{LABEL}="{worker}",{rest}'
    name, _, rest = sample.partition(" ")
    return f'{name}{{{LABEL}="{worker}"}} {rest}'
