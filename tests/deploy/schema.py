"""Validation by the schemas beside this file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

SCHEMAS = Path(__file__).parent / "schemas"


def compose_problems(document: dict[str, Any]) -> list[str]:
    """What the Compose Specification has against it."""
    return _problems(_schema("compose-spec.json"), document)


def kubernetes_problems(document: dict[str, Any]) -> list[str]:
    """What Kubernetes would not accept, unknown fields included. KeyError for a kind that has no schema here."""
    everything = _schema("kubernetes.json")
    kind = everything["kinds"][document["kind"]]
    return _problems({**kind, "definitions": everything["definitions"]}, document)


@cache
def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / name).read_text("utf-8"))
    return found


def _problems(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    validator = jsonschema_rs.validator_for(schema)
    return [
        f"{'/'.join(map(str, one.instance_path))}: {one.message}" for one in validator.iter_errors(document)
    ]
