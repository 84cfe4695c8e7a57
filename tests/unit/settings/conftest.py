"""An environment that is complete, and a loader that reads nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.settings import Problem, Settings, SettingsError, load

MASTER_KEY = "kq8Zr1vYw3XcT5bNs7Ld9GhJf2PmRe4U"
PEPPER = "Uz6MiWo0Aq9Sx8Dc7Fv5Gb4Hn3JmKlP1"

REQUIRED = {
    "GATEWAY_DATABASE__URL": "postgresql+psycopg://gateway:hunter2hunter2@db.internal:5432/gateway",
    "GATEWAY_REDIS__URL": "redis://cache.internal:6379/0",
    "GATEWAY_SECRETS__MASTER_KEYS": MASTER_KEY,
    "GATEWAY_SECRETS__KEY_PEPPER": PEPPER,
}


@pytest.fixture
def required() -> dict[str, str]:
    """The smallest environment that loads."""
    return dict(REQUIRED)


@pytest.fixture
def load_with(tmp_path: Path) -> Callable[..., Settings]:
    """`load` with the required variables, an optional gateway.toml and a directory of its own."""

    def run(
        environ: Mapping[str, str] | None = None,
        toml: str = "",
        overrides: Mapping[str, Mapping[str, object]] | None = None,
        without: tuple[str, ...] = (),
    ) -> Settings:
        (tmp_path / "gateway.toml").write_text(toml, encoding="utf-8")
        given = {**REQUIRED, **(environ or {})}
        return load(
            tmp_path, {name: text for name, text in given.items() if name not in without}, overrides or {}
        )

    return run


@pytest.fixture
def problems_with(load_with: Callable[..., Settings]) -> Callable[..., list[Problem]]:
    """The problems of a load that must fail."""

    def run(*arguments: object, **named: object) -> list[Problem]:
        with pytest.raises(SettingsError) as caught:
            load_with(*arguments, **named)
        return caught.value.problems

    return run
