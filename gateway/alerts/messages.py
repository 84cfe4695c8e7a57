"""What a webhook is sent, how it is signed, and when it is tried again. Pure.

The signature is that of Standard Webhooks: receivers check it with that project's libraries.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

Format = Literal["standard", "slack"]
Event = Literal["alert.raised", "alert.resolved", "test"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, none itself
LONGEST_URL = 2000
# Seconds after the first failed try, the second, …; after one more try a delivery has failed.
WAITS = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18000.0)
MOST_TRIES = len(WAITS) + 1
JITTER = 0.2
# Addresses on which machines tell of themselves; no receiver is there.
_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
    ipaddress.ip_network("fd20:ce::254/128"),
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("168.63.129.16/32"),
)
# Networks whose last 32 bits are an IPv4 address: mapped, compatible, NAT64.
_EMBEDDING = tuple(
    map(
        ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
    )
)


def body(webhook: Format, event: Event, at: datetime, data: Mapping[str, Any]) -> str:
    """The JSON that is posted; it stays the same over all tries. `data` of an event is the alert."""
    if webhook == "slack":
        return _json({"text": _slack(event, data)})
    return _json({"type": event, "timestamp": at.isoformat(), "data": data})


def headers(delivery: UUID, secret: str, content: str, at: int) -> dict[str, str]:
    """The headers of one try, `at` in unix seconds; the id is the delivery's, so it stays the same over all tries."""
    ident = message_id(delivery)
    return {
        "content-type": "application/json",
        "user-agent": "pixapi-gateway",
        "webhook-id": ident,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(secret, ident, at, content),
    }


def message_id(delivery: UUID) -> str:
    return f"msg_{delivery.hex}"


def signature(secret: str, ident: str, at: int, content: str) -> str:
    """`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`; `secret` is `whsec_` and a key in base64."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    signed = f"{ident}.{at}.{content}".encode()
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def new_secret(key: bytes) -> str:
    """A signing secret as its receiver configures it; `key` are 24 to 64 random bytes."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def wait_after(tries: int, chance: float) -> float | None:
    """Seconds until the next try after so many failed ones, None after the last; `chance` from 0 to 1 spreads it."""
    if tries > len(WAITS):
        return None
    return WAITS[tries - 1] * (1 - JITTER + 2 * JITTER * chance)


def checked_url(text: str) -> str:
    """`text` when a webhook can have it as its address; else ValueError, for after a field's name."""
    wanted = "must be an address like https://host/path"
    if len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{wanted}, at most {LONGEST_URL} ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if parts.fragment:
        raise ValueError("must not have a fragment (#…)")
    if is_metadata(parts.hostname):
        raise ValueError("must not be a link-local or metadata address")
    return text


def is_metadata(host: str) -> bool:
    """Whether this is an IP address that is never sent to: link-local ones and those of cloud metadata."""
    address = _address(host.rstrip("."))
    if address is None:
        return False
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _EMBEDDING):
            meant.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None:
            meant.append(address.sixtofour)
    return any(one in network for one in meant for network in _METADATA if one.version == network.version)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address written here; None for names, and for the old ways to write one (`0xa9fea9fe`), which are looked up
    like names."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def origin(url: str) -> str:
    """Scheme and host alone: what may be shown to all, as a path may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _slack(event: Event, data: Mapping[str, Any]) -> str:
    if event == "test":
        return "Test of the webhook by pixapi-gateway."
    words = {"alert.raised": f"[{data['severity']}]", "alert.resolved": "[resolved]"}
    text = f"{words[event]} {data['kind']}: {data['summary']}"
    # Slack's three control characters.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
