"""Short HTML forms: read whole, each field once unless it is one of several ticked boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from gateway import errors

LARGEST_FORM = 64 * 1024
MOST_FIELDS = 200


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` holds each field's text without the spaces around it, `several` all values of those sent repeatedly."""

    fields: Mapping[str, str] = field(default_factory=dict)
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def read_form(request: Request, largest: int = LARGEST_FORM) -> Form:
    """The form in the body; 413, 415, or 400 for what is no form."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise errors.unsupported_media_type("Forms are read as application/x-www-form-urlencoded only.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > largest:
                raise errors.too_large(f"The form is longer than {largest} bytes.")
    except ClientDisconnect:
        raise errors.bad_request("The connection ended within the body.") from None
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        raise errors.bad_request("The form cannot be read.") from None
    several: dict[str, list[str]] = {}
    for name, value in pairs:
        several.setdefault(name, []).append(value.strip())
    return Form({name: values[-1] for name, values in several.items()}, several)
