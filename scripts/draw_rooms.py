"""Draws docs/images/rooms.svg: the rooms of the gateway, from the layers that import-linter holds (pyproject.toml).

`python -m scripts.draw_rooms` writes it; a test compares. One box a room, one row a layer, imports point down. Colours
follow the reader's light or dark setting.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from html import escape

from scripts.locked import ROOT

PICTURE = ROOT / "docs/images/rooms.svg"
WIDTH, MARGIN, GAP, BOX, ROW = 960, 16, 10, 46, 60
SIDE = 128  # what a row is about, left of its boxes
# What each room is for, in three words or so, and the colour of its kind.
ROOMS = {
    "__main__": ("python -m gateway", "edge"),
    "cli": ("commands, quickstart", "edge"),
    "app": ("routes, middleware order", "edge"),
    "server": ("sockets, framing, drain", "edge"),
    "sandbox": ("a simulated Pixapi", "edge"),
    "composition": ("builds every collaborator", "edge"),
    "runtime": ("opens, closes, runs loops", "edge"),
    "middleware": ("one effect a file", "http"),
    "endpoints": ("paid calls, tasks, models", "http"),
    "admin": ("API, dashboard, sign-in", "http"),
    "pages": ("templates, charts, cookies", "http"),
    "proxy": ("bodies, exchange, relay", "http"),
    "repeats": ("a call made before", "rules"),
    "tasks": ("read once, settled once", "rules"),
    "catalog": ("prices, model lists", "rules"),
    "alerts": ("rules, webhooks", "rules"),
    "pool": ("the one way to Pixapi", "rules"),
    "access": ("teams, keys, tokens", "truth"),
    "limits": ("rates, calls in flight", "truth"),
    "credits": ("holds, quotas, ledger", "truth"),
    "upstream": ("HTTP to Pixapi", "truth"),
    "cache": ("Redis: may be lost", "truth"),
    "db": ("Postgres: every fact", "truth"),
    "background": ("loops", "base"),
    "spool": ("bodies on disk", "base"),
    "siblings": ("worker to worker", "base"),
    "settings": ("", "base"),
    "errors": ("", "base"),
    "clock": ("", "base"),
    "ids": ("", "base"),
    "patience": ("", "base"),
    "waiting": ("", "base"),
    "logs": ("", "base"),
    "telemetry": ("", "base"),
    "tracing": ("", "base"),
    "exposition": ("", "base"),
    "trust": ("", "base"),
}
SIDES = {
    "__main__": "starting",
    "middleware": "HTTP",
    "repeats": "rules of a call",
    "access": "facts and wires",
    "background": "under all",
}
STYLE = """
  text { font: 13px ui-sans-serif, system-ui, 'Segoe UI', 'Noto Sans', sans-serif; fill: #1f2937; }
  .name { font-weight: 600; }
  .what { font-size: 11px; fill: #4b5563; }
  .side { font-size: 12px; fill: #6b7280; }
  .ground { fill: #ffffff; }
  rect.room { stroke-width: 1; }
  .edge { fill: #f3f4f6; stroke: #9ca3af; } .http { fill: #e0ecff; stroke: #6d9ceb; }
  .rules { fill: #fdf0d5; stroke: #d9a441; } .truth { fill: #dcf5e4; stroke: #4fae74; }
  .base { fill: #f3f4f6; stroke: #cbd0d8; }
  .arrow { stroke: #9ca3af; stroke-width: 1.5; fill: none; } .head { fill: #9ca3af; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb; } .what { fill: #b6bdc9; } .side { fill: #9ca3af; } .ground { fill: #0d1117; }
    .edge { fill: #20262f; stroke: #626b79; } .http { fill: #14294a; stroke: #4a7bd0; }
    .rules { fill: #3a2c0d; stroke: #b5842b; } .truth { fill: #0f3420; stroke: #3f9661; }
    .base { fill: #20262f; stroke: #4a525f; } .arrow { stroke: #6b7280; } .head { fill: #6b7280; }
  }
"""


@dataclass(frozen=True)
class Layer:
    rooms: tuple[str, ...]


def layers() -> list[Layer]:
    """Top to bottom, as the contract lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    listed = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    return [Layer(tuple(re.findall(r"\w+", line))) for line in listed]


def svg() -> str:
    """The picture; a room without a line in `ROOMS` is an error, and so is a line without its room."""
    found = layers()
    drawn = {room for layer in found for room in layer.rooms}
    if drawn != set(ROOMS):
        raise ValueError(f"scripts/draw_rooms.py and pyproject.toml disagree: {sorted(drawn ^ set(ROOMS))}")
    height = MARGIN * 2 + ROW * len(found) - (ROW - BOX) + 26
    body = [line for number, layer in enumerate(found) for line in _layer(MARGIN + 26 + number * ROW, layer)]
    title = "The rooms of the gateway: imports point down, rooms side by side do not know each other"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
            f'<text class="side" x="{SIDE}" y="{MARGIN + 12}">{title}</text>',
            f'<path class="arrow" d="M {MARGIN + 4} {MARGIN + 30} V {height - MARGIN - 10}"/>',
            f'<path class="head" d="M {MARGIN - 1} {height - MARGIN - 12} h 10 l -5 10 z"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _layer(top: int, layer: Layer) -> list[str]:
    left, room_for = SIDE, WIDTH - SIDE - MARGIN
    width = (room_for - GAP * (len(layer.rooms) - 1)) / len(layer.rooms)
    lines = []
    if layer.rooms[0] in SIDES:
        side = SIDES[layer.rooms[0]]
        lines.append(f'<text class="side" x="{MARGIN + 16}" y="{top + BOX / 2 + 4:g}">{side}</text>')
    for number, room in enumerate(layer.rooms):
        lines += _room(left + number * (width + GAP), top, width, room)
    return lines


def _room(left: float, top: int, width: float, room: str) -> list[str]:
    what, kind = ROOMS[room]
    middle = left + width / 2
    name_at = top + (20 if what else BOX / 2 + 4)
    lines = [
        f'<rect class="room {kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BOX}" rx="6"/>',
        f'<text class="name" x="{middle:.1f}" y="{name_at:g}" text-anchor="middle">{escape(room)}</text>',
    ]
    if what:
        lines.append(
            f'<text class="what" x="{middle:.1f}" y="{top + 36}" text-anchor="middle">{escape(what)}</text>'
        )
    return lines


def main() -> int:
    PICTURE.write_text(svg(), "utf-8")
    print(f"→ {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
