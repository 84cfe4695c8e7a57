"""Bodies nobody pays for, such as forms of pages and documents of the admin API: read whole, and in time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from gateway import errors

SECONDS = 30.0  # for all of it


async def read(request: Request, largest: int, what: str) -> bytes:
    """The body, of at most `largest` bytes. Raises GatewayError: 413 beyond them, 408 when it does not come in time,
    400 when its client leaves; `what` begins their sentences."""
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > largest:
                    raise errors.too_large(f"{what} is longer than {largest} bytes.")
    except TimeoutError:
        raise errors.request_timeout(f"{what} did not arrive within {SECONDS:g} s.") from None
    except ClientDisconnect:
        raise errors.bad_request("The connection ended within the body.") from None
    return bytes(body)
