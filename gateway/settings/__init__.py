"""Process settings: `load` reads gateway.toml and GATEWAY_* variables into one frozen `Settings`.

`sections.py` holds every setting, `sources.py` where values come from, `secrets.py` what may be a secret.
Read by `runtime` and `cli` alone; everything else receives values.
"""

from gateway.settings.loading import load, masked
from gateway.settings.model import ADMIN_CONNECTIONS, Settings
from gateway.settings.problems import Problem, SettingsError
from gateway.settings.sources import find_config_dir

__all__ = [
    "ADMIN_CONNECTIONS",
    "Problem",
    "Settings",
    "SettingsError",
    "find_config_dir",
    "load",
    "masked",
]
