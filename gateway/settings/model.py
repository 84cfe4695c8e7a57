"""The settings as one frozen value, built from gathered values with every problem named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.settings.fields import Section
from gateway.settings.problems import Problem
from gateway.settings.secrets import MAKE_ONE, Masking, mask_address
from gateway.settings.sections import (
    Admin,
    Alerts,
    Cache,
    Credits,
    Database,
    Log,
    Metrics,
    Redis,
    Repeats,
    Secrets,
    Server,
    Tracing,
    Upstream,
)


class Settings(BaseModel):
    """Everything a process is told from outside; made by `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Server
    database: Database
    redis: Redis
    upstream: Upstream
    cache: Cache
    credits: Credits
    repeats: Repeats
    secrets: Secrets
    admin: Admin
    metrics: Metrics
    alerts: Alerts
    tracing: Tracing
    log: Log
    config_dir: Path = Field(description="Where gateway.toml and models.toml come from.")
    warnings: tuple[str, ...] = Field(default=(), description="What works and is probably not meant.")

    @property
    def database_connections(self) -> int:
        """Connections to Postgres that one process may open: those of paid calls, and those of the admin side."""
        return self.database.pool_size + ADMIN_CONNECTIONS

    @property
    def upstream_connections(self) -> int:
        """Connections to Pixapi of one process: `upstream.max_connections`, or its default."""
        return self.upstream.max_connections or self.server.max_paid_in_flight + 100


class Value(NamedTuple):
    """A setting as a source gave it, and the words that name the source."""

    raw: object
    source: str


SECTIONS: Mapping[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
FIELDS: Mapping[str, FieldInfo] = {
    f"{section}.{name}": field
    for section, model in SECTIONS.items()
    for name, field in model.model_fields.items()
}

# The first may not be set to more than the second. Lowering the second alone is fine: it simply wins.
AT_MOST = (
    ("server.max_file_bytes", "server.max_multipart_bytes"),
    ("server.drain_min_seconds", "server.drain_seconds"),
    ("database.lock_timeout", "database.statement_timeout"),
    ("admin.session_idle", "admin.session_absolute"),
)


# Signing in with a provider takes all of these, and the groups that may.
ADMIN_CONNECTIONS = 3  # of the admin side, in each process, besides database.pool_size
OIDC = ("admin.oidc_issuer", "admin.oidc_client_id", "admin.oidc_client_secret")
OIDC_GROUPS = ("admin.oidc_admin_groups", "admin.oidc_viewer_groups")


def environment_name(setting: str) -> str:
    """`server.port` → `GATEWAY_SERVER__PORT`."""
    return "GATEWAY_" + setting.replace(".", "__").upper()


def masking(setting: str) -> Masking | None:
    """How the value of `setting` has to be hidden, if at all."""
    return next((mark for mark in FIELDS[setting].metadata if isinstance(mark, Masking)), None)


def build(values: Mapping[str, Value]) -> tuple[dict[str, Section], list[Problem]]:
    """The sections that `values` (by setting) make, and every problem; without problems none is missing."""
    sections: dict[str, Section] = {}
    problems: list[Problem] = []
    for name, model in SECTIONS.items():
        settings = {field: f"{name}.{field}" for field in model.model_fields}
        raw = {field: values[setting].raw for field, setting in settings.items() if setting in values}
        section, errors = _validate(model, raw)
        if section is not None:
            sections[name] = section
        problems += [_problem(f"{name}.{error['loc'][0]}", error, values) for error in errors]
    wrong = {problem.setting for problem in problems}
    problems += _contradictions(sections, wrong, values)
    return sections, problems


def _validate(model: type[Section], raw: dict[str, object]) -> tuple[Section | None, list[ErrorDetails]]:
    """The section and its errors. With errors, a section of what is right, so that comparisons go on."""
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    wrong = {error["loc"][0] for error in errors}
    try:
        return model.model_validate({name: value for name, value in raw.items() if name not in wrong}), errors
    except ValidationError:  # a required one is among them
        return None, errors


def _problem(setting: str, error: ErrorDetails, values: Mapping[str, Value]) -> Problem:
    source = values[setting].source if setting in values else "not set"
    if error["type"] == "missing":
        return Problem(setting, source, _how_to_set(setting))
    message = str(error.get("ctx", {}).get("error") or error["msg"])
    message = message.replace("Input should be", "must be").replace("Input should have", "must have")
    message = message[:1].lower() + message[1:]
    if len(error["loc"]) > 1:
        message = f"entry {int(error['loc'][1]) + 1} {message}"
    if masking(setting) is None:
        shown = error["input"]
        shown = mask_address(shown) if isinstance(shown, str) else shown
        message += f"; it is {json.dumps(shown, default=str, ensure_ascii=False)[:80]}"
    return Problem(setting, source, message)


def _how_to_set(setting: str) -> str:
    name = environment_name(setting)
    example = MAKE_ONE if masking(setting) is Masking.WHOLE else f"for example {FIELDS[setting].examples[0]}"  # type: ignore[index]
    return f"is required: set {name} or {name}_FILE; {example}"


def _contradictions(
    sections: Mapping[str, Section], wrong: set[str], values: Mapping[str, Value]
) -> Iterator[Problem]:
    """Settings that are right alone and wrong together; those already wrong are not compared."""

    def get(setting: str) -> Any:
        section, field = setting.split(".")
        return None if setting in wrong or section not in sections else getattr(sections[section], field)

    for low, high in AT_MOST:
        if low in values and get(low) is not None and get(high) is not None and get(low) > get(high):
            message = (
                f"is {get(low)} and must be at most {high}, which is {get(high)}; lower it or raise {high}"
            )
            yield Problem(low, values[low].source, message)
    hold = "credits.default_hold"
    if get("credits.unpriced") == "hold_default" and get(hold) is None and hold not in wrong:
        yield Problem(
            hold,
            values["credits.unpriced"].source,
            "is required when credits.unpriced is hold_default: set GATEWAY_CREDITS__DEFAULT_HOLD",
        )
    given = next((setting for setting in OIDC if get(setting)), None)
    for setting in (*OIDC, "server.public_url") if given is not None else ():
        if get(setting) is None and setting not in wrong:
            yield Problem(
                setting, "not set", f"is required for signing in with a provider, since {given} is set"
            )
    if given is not None and not any(get(setting) or setting in wrong for setting in OIDC_GROUPS):
        yield Problem(
            OIDC_GROUPS[0], "not set", f"or {OIDC_GROUPS[1]} must name a group, or nobody could sign in"
        )
