"""What crosses between the client's side and Pixapi's: an allow-list each way, built anew for every call.

Nothing the client sent is copied but its content type and accept, and nothing Pixapi sent but the content type, so
cookies, forwarded addresses, hop-by-hop fields and keys cannot cross by being forgotten.
"""

from __future__ import annotations

import re

from gateway import __version__

Header = tuple[bytes, bytes]

_USER_AGENT = f"pixapi-gateway/{__version__}".encode()
_PLAIN_VALUE = re.compile(rb"[\x20-\x7e]{1,256}")


def toward_pixapi(
    *,
    secret: str,
    request_id: str,
    content_type: bytes | None = None,
    accept: bytes | None = None,
    content_length: int | None = None,
) -> list[Header]:
    """The whole header list of one upstream request."""
    headers = [
        (b"authorization", b"Bearer " + secret.encode()),
        (b"user-agent", _USER_AGENT),
        (b"accept", accept if accept is not None and _PLAIN_VALUE.fullmatch(accept) else b"*/*"),
        (b"x-request-id", request_id.encode()),
    ]
    if content_type is not None:
        headers.append((b"content-type", content_type))
    if content_length is not None:
        headers.append((b"content-length", b"%d" % content_length))
    return headers


def toward_client(content_type: bytes | None, length: int) -> list[Header]:
    """The headers of an answer that came from Pixapi; the middleware adds the gateway's own."""
    plain = content_type if content_type is not None and _PLAIN_VALUE.fullmatch(content_type) else None
    return [
        (b"content-type", plain or b"application/octet-stream"),
        (b"content-length", b"%d" % length),
    ]
