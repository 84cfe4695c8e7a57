"""The documentation as the tests read it: its files, their tables, code and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_CELL = re.compile(r"(?<!\\)\|")
_SPAN = re.compile(r"`([^`\n]+)`")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def page(name: str) -> str:
    """The text of a file, by its path from the root of the project."""
    return (ROOT / name).read_text("utf-8")


def pages() -> list[str]:
    """Every page of the documentation, by its path from the root of the project."""
    found = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, header rows too, rules between them not."""
    for line in text.splitlines():
        if line.startswith("|") and line.endswith("|"):
            cells = [cell.strip() for cell in _CELL.split(line)[1:-1]]
            if not all(set(cell) <= set("-: ") for cell in cells) or not any(cells):
                yield cells


def table(text: str, header: str) -> list[list[str]]:
    """The rows of every table whose first column has this heading."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = next(rows(line), None)
        if cells is None:
            inside = inside and line.startswith("|")
        elif inside:
            found.append(cells)
        else:
            inside = cells[0] == header
    return found


def spans(text: str) -> list[str]:
    """What stands between single backticks."""
    return _SPAN.findall(text)


def blocks(text: str, language: str | None = None) -> list[str]:
    """The code blocks, of one language or all."""
    return [code for name, code in _BLOCK.findall(text) if language is None or name == language]


def code(text: str) -> list[str]:
    """Every line of code: spans, and the lines of blocks."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    return lines + spans(_BLOCK.sub("", text))
