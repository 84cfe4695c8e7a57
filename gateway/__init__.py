"""The Pixapi gateway: team keys, exact credits and absorbed polls in front of the Pixapi media API."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

try:
    __version__ = version("pixapi-gateway")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0+source"

# Where its parts happen to be installed, httpx loads a command line of its own, with rich and pygments: five megabytes,
# and some of the time in which a process is ready. This says that there is none, as where they are not.
cast("dict[str, Any]", sys.modules).setdefault("httpx._main", None)
