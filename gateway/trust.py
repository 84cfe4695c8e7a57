"""Whom the gateway believes when it calls others by TLS."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def trusting(ca_file: str | None) -> ssl.SSLContext:
    """Trusts the authorities in the PEM file, else the system's; raises OSError for a file that is none.

    Made once for all who ask: reading the system's authorities takes as long as many imports, and every start waits.
    """
    return ssl.create_default_context(cafile=ca_file)
