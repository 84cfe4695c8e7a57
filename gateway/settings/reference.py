"""What the documentation says about every setting, printed from the sections themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from gateway.settings.model import FIELDS, SECTIONS, environment_name

BEGIN_TABLE = "<!-- settings: printed by `python -m gateway.settings table` -->"
END_TABLE = "<!-- end of settings -->"

TOML_HEAD = """\
# Process settings of the gateway: every one of them, commented out, with its default.
# Times are seconds, sizes bytes. GATEWAY_<SECTION>__<FIELD> in the environment wins over this file, and
# GATEWAY_<SECTION>__<FIELD>_FILE reads the value from a file. See docs/configuration.md.
"""


def gateway_toml() -> str:
    """The text of `config/gateway.toml`."""
    lines = [TOML_HEAD]
    for section, model in SECTIONS.items():
        lines += [f"# {_one_line(model.__doc__)}", f"[{section}]"]
        for name, field in model.model_fields.items():
            value, is_default = _written_value(field)
            remark = "" if is_default or field.is_required() else " Not set by default; an example:"
            lines += [f"# {field.description}{remark}", f"# {name} = {_toml(value)}"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def settings_table() -> str:
    """The tables of `docs/configuration.md`, one a section, with their markers."""
    lines = [BEGIN_TABLE, ""]
    for section, model in SECTIONS.items():
        lines += [f"### `{section}`", "", _one_line(model.__doc__), ""]
        lines += ["| Setting | Environment | Default | Allowed | Meaning |", "|---|---|---|---|---|"]
        for name in model.model_fields:
            lines.append(_row(f"{section}.{name}"))
        lines.append("")
    return "\n".join([*lines, END_TABLE]) + "\n"


def replace_table(document: str) -> str:
    """`document` with what stands between the markers replaced; ValueError when it lacks them."""
    before, begin, rest = document.partition(BEGIN_TABLE)
    _, end, after = rest.partition(END_TABLE + "\n")
    if not (begin and end):
        raise ValueError("the document lacks the markers of the settings table")
    return before + settings_table() + after


def write_reference(root: Path) -> list[Path]:
    """Bring `config/gateway.toml` and `docs/configuration.md` of the checkout at `root` up to date."""
    toml, document = root / "config" / "gateway.toml", root / "docs" / "configuration.md"
    text = replace_table(document.read_text(encoding="utf-8"))
    document.write_text(text, encoding="utf-8")
    toml.write_text(gateway_toml(), encoding="utf-8")
    return [toml, document]


def _row(setting: str) -> str:
    field = FIELDS[setting]
    value, is_default = _written_value(field)
    if field.is_required():
        default = "required"
    elif not is_default:
        default = "not set"
    elif isinstance(value, list):
        default = "empty"
    else:
        default = f"`{value if isinstance(value, str) else _toml(value)}`{_size(setting, value)}"
    cells = (f"`{setting}`", f"`{environment_name(setting)}`", default, _allowed(setting), field.description)
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _written_value(field: FieldInfo) -> tuple[object, bool]:
    """What stands in gateway.toml for a field, and whether that is its default (else it is an example)."""
    has_default = not field.is_required() and field.default is not None
    if has_default:
        return list(field.default) if isinstance(field.default, tuple) else field.default, True
    examples = field.examples or []
    return examples[0], False


def _allowed(setting: str) -> str:
    field = FIELDS[setting]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    bounds = {
        name: bound
        for mark in field.metadata
        for name in ("ge", "gt", "le")
        if (bound := getattr(mark, name, None)) is not None
    }
    if "le" not in bounds:
        return "–"
    low = f"{bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}"
    return f"{low} to {bounds['le']}"


def _size(setting: str, value: object) -> str:
    if not setting.endswith("_bytes") or not isinstance(value, int):
        return ""
    for unit, width in (("GiB", 1024**3), ("MiB", 1024**2)):
        if value % width == 0:
            return f" ({value // width} {unit})"
    return ""


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
