"""`load`: gather from every source, check, and either a `Settings` or all problems at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr

from gateway.settings.model import FIELDS, SECTIONS, Settings, build, masking
from gateway.settings.problems import SettingsError
from gateway.settings.secrets import MASK, Masking, mask_address
from gateway.settings.sources import (
    MODELS_FILE,
    SETTINGS_FILE,
    Gathered,
    add_table,
    find_config_dir,
    read_environment,
    read_file,
)

NO_OVERRIDES: Mapping[str, Mapping[str, object]] = MappingProxyType({})


def load(
    config_dir: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Mapping[str, object]] = NO_OVERRIDES,
) -> Settings:
    """The settings of this process: shipped defaults < gateway.toml < environment < `overrides`.

    `overrides` are the command line's flags by section and field, None meaning not given.
    SettingsError holds every problem of every source.
    """
    gathered = Gathered()
    directory = Path()
    try:
        directory = find_config_dir(config_dir, environ)
    except SettingsError as error:
        gathered.problems += error.problems
    else:
        read_file(directory / SETTINGS_FILE, gathered)
    read_environment(environ, gathered)
    add_table(overrides, "command line", gathered)
    sections, problems = build(gathered.values)
    reported = {problem.setting for problem in gathered.problems}
    problems = gathered.problems + [problem for problem in problems if problem.setting not in reported]
    if problems:
        raise SettingsError(problems, gathered.warnings)
    settings = Settings(**sections, config_dir=directory)  # type: ignore[arg-type]
    return settings.model_copy(update={"warnings": (*gathered.warnings, *doubts(settings))})


def masked(settings: Settings) -> dict[str, dict[str, Any]]:
    """The merged settings by section, in values JSON knows; secrets and passwords are masked."""
    return {
        section: {
            name: _shown(f"{section}.{name}", getattr(getattr(settings, section), name))
            for name in model.model_fields
        }
        for section, model in SECTIONS.items()
    }


def doubts(settings: Settings) -> Iterator[str]:
    """What is allowed and probably not meant, a sentence each."""
    if not any((settings.config_dir / name).is_file() for name in (SETTINGS_FILE, MODELS_FILE)):
        yield f"{settings.config_dir} holds neither {SETTINGS_FILE} nor {MODELS_FILE}."
    base = settings.upstream.base_url
    if base.startswith("http://") and not base.startswith(
        ("http://127.", "http://localhost", "http://[::1]")
    ):
        yield "upstream.base_url is plain http: Pixapi keys and prompts travel unencrypted."
    if any(network.prefixlen == 0 for network in settings.server.trusted_proxies):
        yield "server.trusted_proxies trusts every address: any client can choose its own with X-Forwarded-For."
    if settings.server.max_multipart_bytes > settings.server.spool_max_bytes:
        yield "server.max_multipart_bytes is more than server.spool_max_bytes: the largest uploads find no room."
    if settings.server.max_paid_in_flight > settings.upstream_connections:
        yield "server.max_paid_in_flight is more than upstream.max_connections: paid calls wait for a connection."
    users: dict[str, list[str]] = {}
    for setting in (setting for setting in FIELDS if masking(setting) is Masking.WHOLE):
        for secret in _secrets(setting, settings):
            users.setdefault(secret, []).append(setting)
    for names in users.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} share one secret; give each its own."


def _secrets(setting: str, settings: Settings) -> list[str]:
    section, name = setting.split(".")
    value: SecretStr | tuple[SecretStr, ...] | None = getattr(getattr(settings, section), name)
    entries = value if isinstance(value, tuple) else (value,)
    return [entry.get_secret_value() for entry in entries if entry is not None]


def _shown(setting: str, value: object) -> object:
    mark = masking(setting)
    if value is None or isinstance(value, bool | int | float):
        return value
    if mark is Masking.WHOLE:
        return [MASK] * len(value) if isinstance(value, tuple) else MASK
    if isinstance(value, tuple):
        return [entry if isinstance(entry, int) else str(entry) for entry in value]
    if isinstance(value, Decimal):
        return format(value, "f")
    return mask_address(str(value)) if mark is Masking.PASSWORD else str(value)
