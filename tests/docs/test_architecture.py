"""docs/architecture.md shows the rooms as they are, and import-linter sees every one of them."""

from __future__ import annotations

import re
import tomllib

from gateway import runtime
from gateway.credits import rollups
from gateway.limits import limits
from gateway.pool import checks
from gateway.tasks import reconciler, watch
from scripts import draw_rooms
from tests.docs.pages import ROOT, page, spans, table

GATEWAY = ROOT / "gateway"
CONTRACTS = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
LAYERS = next(contract for contract in CONTRACTS if contract["type"] == "layers")


def rooms() -> set[str]:
    """The modules and packages right below `gateway`."""
    files = {path.stem for path in GATEWAY.glob("*.py")}
    folders = {path.name for path in GATEWAY.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    return (files | folders) - {"__init__", "__main__"}


def test_every_room_has_its_row_and_no_other() -> None:
    listed = [name for row in table(page("docs/architecture.md"), "room") for name in spans(row[0])]
    assert sorted(listed) == sorted(rooms())


def test_the_picture_is_drawn_from_the_layers_of_the_contract() -> None:
    assert page("docs/images/rooms.svg") == draw_rooms.svg(), "run: make rooms"
    assert "(images/rooms.svg)" in page("docs/architecture.md")


def test_the_picture_has_a_box_for_every_room() -> None:
    boxes = re.findall(r'class="name"[^>]*>([^<]+)<', page("docs/images/rooms.svg"))
    assert sorted(boxes) == sorted(rooms() | {"__main__"})


def test_background_work_has_the_intervals_of_the_source() -> None:
    listed = [row[0] for row in table(page("docs/architecture.md"), "every")]
    seconds = (
        runtime.POOL_REFRESH_SECONDS,
        runtime.PRICES_SECONDS,
        runtime.MODELS_WARM_SECONDS,
        checks.LOOK_SECONDS,
    )
    assert listed == [
        *(f"{every:g} s" for every in seconds),
        f"≤ {reconciler.IDLE:g} s",
        f"{watch.LOOK_SECONDS:g} s",
        f"{limits.RENEW_SECONDS:g} s",
        "always",
        f"{runtime.REPEATS_SECONDS:g} s",
        f"{runtime.AGING_SECONDS:g} s",
        f"{rollups.ROLL_SECONDS / 60:g} min, and at start",
        f"{runtime.PARTITIONS_SECONDS / 3600:g} h, and at start",
    ]


def test_the_contract_is_exhaustive() -> None:
    assert LAYERS["exhaustive"] is True
    assert LAYERS["containers"] == ["gateway"]


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in GATEWAY.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
