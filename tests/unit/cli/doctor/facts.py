"""Settings of a small installation, as the doctor's judges take them."""

from __future__ import annotations

from pathlib import Path

from gateway.settings import Settings, load

SHIPPED = Path(__file__).parents[4] / "config"
REQUIRED = {
    "GATEWAY_DATABASE__URL": "postgresql+psycopg://gateway:hunter2@db/gateway",
    "GATEWAY_REDIS__URL": "redis://:hunter2@cache:6379/0",
    "GATEWAY_SECRETS__MASTER_KEYS": "m-Kq8vTz2LwR5yXb7Nc4Pd9Gs1Hf6Jt3",
    "GATEWAY_SECRETS__KEY_PEPPER": "p-Kq8vTz2LwR5yXb7Nc4Pd9Gs1Hf6Jt3",
}


def settings(**changed: str) -> Settings:
    """The defaults, with `SERVER__PORT="1"` and the like."""
    return load(SHIPPED, REQUIRED | {f"GATEWAY_{name}": value for name, value in changed.items()})
