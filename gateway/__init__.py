"""The Pixapi gateway: team keys, exact credits and absorbed polls in front of the Pixapi media API."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pixapi-gateway")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0+source"
