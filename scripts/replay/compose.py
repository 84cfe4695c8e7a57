"""Reads docker-compose.yml as compose does: variables of .env put in, merges resolved; the rest is plain YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:-|:\?)([^}]*))?\}|(\w+))")


class ComposeError(ValueError):
    """Compose would refuse to start; the message is the guard's own."""


def read_env(text: str) -> dict[str, str]:
    """The variables of a .env file as `make env` writes it: NAME=value, no quotes."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def load(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with every variable put in. ComposeError when one of `${NAME:?…}` is missing."""
    found: dict[str, Any] = _interpolated(yaml.safe_load(path.read_text("utf-8")), environ)
    return found


def environment(service: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """What the service's processes get: names without a value are handed on only when they are set."""
    given: Mapping[str, object] = service.get("environment") or {}
    return {
        name: environ[name] if value is None else str(value)
        for name, value in given.items()
        if value is not None or name in environ
    }


def seconds(text: str) -> float:
    """`630s`, `1m30s` or `500ms` as seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    found = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if "".join(number + unit for number, unit in found) != text or not found:
        raise ComposeError(f"not a duration: {text}")
    return sum(float(number) * units[unit] for number, unit in found)


def _interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, environ), value)
    if isinstance(value, list):
        return [_interpolated(one, environ) for one in value]
    if isinstance(value, dict):
        return {name: _interpolated(one, environ) for name, one in value.items()}
    return value


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    dollar, name, operator, text, bare = found.groups()
    if dollar:
        return "$"
    value = environ.get(name or bare, "")
    if value or operator is None:
        return value
    if operator == ":?":
        raise ComposeError(f"{name}: {text}")
    return str(text)
