"""Short HTML forms: read whole, each field once unless it is one of several ticked boxes; and where they lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Send

from gateway import errors
from gateway.proxy import small_body
from gateway.proxy.relay import reply
from gateway.upstream.headers import Header

LARGEST_FORM = 64 * 1024
MOST_FIELDS = 200
LARGEST_SIGN_IN = 8 * 1024
MOST_SIGN_IN_FIELDS = 10


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` holds each field's text without the spaces around it, `several` all values of those sent repeatedly."""

    fields: Mapping[str, str] = field(default_factory=dict)
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def read_form(request: Request) -> Form:
    """The form in the body; 413, 415, or 400 for what is no form."""
    several: dict[str, list[str]] = {}
    for name, value in await _pairs(request, LARGEST_FORM, MOST_FIELDS):
        several.setdefault(name, []).append(value.strip())
    return Form({name: values[-1] for name, values in several.items()}, several)


async def read_sign_in(request: Request) -> Mapping[str, str]:
    """The fields of a sign-in form, which anybody may send: 413, 415, or 400 also for a field that is there twice."""
    pairs = await _pairs(request, LARGEST_SIGN_IN, MOST_SIGN_IN_FIELDS)
    fields = {name: value.strip() for name, value in pairs}
    if len(fields) != len(pairs):
        raise errors.bad_request("A field of the form is there twice.")
    return fields


async def see_other(send: Send, path: str, headers: Sequence[Header] = ()) -> None:
    """303: the browser goes on with a GET."""
    location = [(b"location", path.encode()), (b"cache-control", b"no-store")]
    await reply(send, 303, [*location, *headers], b"")


async def _pairs(request: Request, largest: int, most: int) -> list[tuple[str, str]]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise errors.unsupported_media_type("Forms are read as application/x-www-form-urlencoded only.")
    body = await small_body.read(request, largest, "The form")
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=most, errors="strict")
    except ValueError:
        raise errors.bad_request("The form cannot be read.") from None
