"""The kinds of values the admin API takes: each a type that checks what it is given and says what it wants.

Numbers come in as int or Decimal, never as float, so credits stay exact. The messages read after a field's name:
"limit: must be a number of credits". None of them repeats a secret.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.access.team_keys import LONGEST_OVERLAP, normal_address
from gateway.access.teams import LONGEST_SLUG, SLUG, looks_like_id
from gateway.alerts.facts import KINDS
from gateway.alerts.messages import LONGEST_URL, checked_url
from gateway.credits import usage
from gateway.credits.amount import NotAnAmountError, from_decimal
from gateway.db.paging import LARGEST_LIMIT, checked_cursor
from gateway.pool import upstream_keys

LARGEST_COUNT = 1_000_000
# More than spaces; which characters are visible at all is Unicode's matter.
_VISIBLE = {"type": "string", "minLength": 1, "pattern": r"\S"}
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})


def visible_text(value: object, longest: int) -> str:
    """`value` without spaces around it; raises ValueError unless it is 1 to `longest` visible characters."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = value.strip()
    if not 1 <= len(text) <= longest:
        raise ValueError(f"must have 1 to {longest} characters")
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        raise ValueError("must not hold control characters")
    return text


def whole_number(value: Any, smallest: int, largest: int) -> int:
    """`value` as an int; raises ValueError unless it is a whole number in the range. Text is not a number; 5.0 is 5."""
    number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not number or not smallest <= value <= largest or value != int(value):
        raise ValueError(f"must be a whole number from {smallest} to {largest}")
    return int(value)


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """The check a field's value goes through before its type is looked at, and how OpenAPI describes the field."""

    check: Callable[[Any], object] | Callable[[Any, ValidationInfo], object]
    schema: JsonSchemaValue

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return BeforeValidator(self.check).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(self.schema)


def _text_of(longest: int, description: str) -> Checked:
    schema = {**_VISIBLE, "maxLength": longest, "description": description}
    return Checked(lambda value: visible_text(value, longest), schema)


def _whole(smallest: int, largest: int, description: str) -> Checked:
    schema = {"type": "integer", "minimum": smallest, "maximum": largest, "description": description}
    return Checked(lambda value: whole_number(value, smallest, largest), schema)


def _slug(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_SLUG or not SLUG.fullmatch(value):
        raise ValueError(
            f"must be at most {LONGEST_SLUG} lower-case letters, digits and single hyphens between them"
        )
    if looks_like_id(value):
        raise ValueError("must not look like an id")
    return value


@cache
def _zones() -> frozenset[str]:
    """The IANA names. What else lies in a system's folder of zones (localtime, posixrules, …) is in lower case, and
    `Factory` means that no zone was set."""
    return frozenset(name for name in available_timezones() if name[0].isupper() and name != "Factory")


def _time_zone(value: object) -> str:
    if isinstance(value, str) and value in _zones():
        return value
    near = difflib.get_close_matches(str(value)[:64], _zones(), n=1)
    raise ValueError(
        f"must be an IANA time zone such as Europe/Berlin{f', did you mean {near[0]}?' if near else ''}"
    )


def _models(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 200:
        raise ValueError("must be a list of 1 to 200 model names, or null for every model")
    return tuple(dict.fromkeys(visible_text(name, 128) for name in value))


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 200:
        raise ValueError("must be a list of 1 to 200 IP addresses or networks, or null for every address")
    return tuple(dict.fromkeys(map(_address, value)))


def _address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must hold IP addresses or networks as text")
    try:
        return normal_address(value.strip())
    except ValueError:
        raise ValueError(
            f"'{value[:64]}' is no IP address (10.1.2.3, 2001:db8::1) or network (10.0.0.0/8)"
        ) from None


def _future(value: object, info: ValidationInfo) -> datetime:
    """ISO 8601 with a zone, after the `now` of the validation's context."""
    wanted = "must be a time in ISO 8601 with its zone, such as 2031-12-31T23:59:59Z"
    if not isinstance(value, str):
        raise ValueError(wanted)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(wanted)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if info.context is not None and moment <= info.context["now"]:
        raise ValueError("must be in the future")
    return moment


def _credits(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number of credits, 0 or more")
    try:
        return from_decimal(Decimal(value))
    except NotAnAmountError as error:
        raise ValueError(str(error)) from None


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _truth_text(value: object) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _upstream_secret(value: object) -> str:
    if not isinstance(value, str) or not upstream_keys.SECRET.fullmatch(value):
        raise ValueError("must be 8 to 512 printable ASCII characters without spaces")
    return value


def _label(value: object) -> str:
    label = visible_text(value, 64)
    if upstream_keys.looks_like_id(label):
        raise ValueError("must not look like an id")
    return label


def _webhook_url(value: object) -> str:
    return checked_url(visible_text(value, LONGEST_URL))


def _kinds(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= len(KINDS):
        raise ValueError("must be a list of kinds of alerts, or null for every kind")
    for kind in value:
        if kind not in KINDS:
            raise ValueError(f"'{str(kind)[:64]}' is no kind of alert; they are {', '.join(KINDS)}")
    return tuple(dict.fromkeys(value))


def _cursor(value: object) -> str:
    return checked_cursor(visible_text(value, 1000))


def _page_limit(value: object) -> int:
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= number <= LARGEST_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {LARGEST_LIMIT}")
    return number


def _bound(value: object) -> usage.Bound:
    return usage.bound(str(value)[:64])


def _instant(value: object) -> datetime:
    """A bare date is its beginning in UTC."""
    text = str(value)[:64]
    wanted = "must be a date such as 2026-03-01, or a time with its zone such as 2026-03-01T10:20:00Z"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not 1970 <= moment.year <= 2200:
        raise ValueError(wanted)
    return moment


def _dimensions(value: object) -> tuple[usage.Dimension, ...]:
    return usage.dimensions(str(value))


def _one_of(*choices: str) -> Checked:
    def check(value: object) -> object:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return Checked(check, {"type": "string", "enum": list(choices)})


_LIST = {"type": "array", "items": {**_VISIBLE, "maxLength": 128}, "minItems": 1, "maxItems": 200}
_SLUG = {
    "type": "string",
    "pattern": f"^{SLUG.pattern}$",
    "maxLength": LONGEST_SLUG,
    "description": "not what looks like an id",
}
_LABEL = {**_VISIBLE, "maxLength": 64}
_ZONE = {"type": "string", "description": "an IANA name, such as Europe/Berlin"}
_MOMENT = {"type": "string", "format": "date-time", "description": "in the future, with a zone"}
_CREDITS = {"type": "number", "minimum": 0, "description": "credits; six decimals are kept"}
_BOUND = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
    "description": "a date, or a time with a zone on a quarter of an hour",
}
_INSTANT = {**_BOUND, "description": "a date, which begins in UTC, or a time with a zone"}
_DIMENSION = f"(?:{'|'.join(usage.DIMENSIONS)})"
_BY = {
    "type": "string",
    "pattern": f"^{_DIMENSION}(?:,{_DIMENSION})*$",
    "description": f"one or several of {', '.join(usage.DIMENSIONS)}, with commas",
}
_SECRET = {
    "type": "string",
    "minLength": 8,
    "maxLength": 512,
    "pattern": f"^{upstream_keys.SECRET.pattern}$",
    "writeOnly": True,
}
_URL = {
    "type": "string",
    "pattern": "^https?://",
    "maxLength": LONGEST_URL,
    "description": "an http or https address",
}
_KINDS = {"type": "array", "items": {"type": "string", "enum": list(KINDS)}, "minItems": 1}
_CURSOR = {
    "type": "string",
    "minLength": 1,
    "maxLength": 1000,
    "description": "the `next` of the page before",
}
_PAGE = {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT}

Name = Annotated[str, _text_of(100, "1 to 100 characters")]
ShortText = Annotated[str, _text_of(128, "1 to 128 characters")]
Subject = Annotated[str, _text_of(200, "1 to 200 characters")]
Actor = Annotated[str, _text_of(300, "as `actor` and `subject` name who acts")]
Label = Annotated[str, Checked(_label, _LABEL)]
Slug = Annotated[str, Checked(_slug, _SLUG)]
TimeZone = Annotated[str, Checked(_time_zone, _ZONE)]
Models = Annotated[tuple[str, ...], Checked(_models, _LIST)]
Addresses = Annotated[
    tuple[str, ...], Checked(_addresses, _LIST | {"description": "IP addresses or networks (CIDR)"})
]
Future = Annotated[datetime, Checked(_future, _MOMENT)]
Credits = Annotated[int, Checked(_credits, _CREDITS)]  # micro-credits inside
Count = Annotated[int, _whole(1, LARGEST_COUNT, "at least 1")]
Weight = Annotated[int, _whole(1, 1000, "share of the calls relative to the other keys")]
Overlap = Annotated[int, _whole(0, LONGEST_OVERLAP, "seconds the old key goes on working")]
Truth = Annotated[bool, Checked(_truth, {"type": "boolean"})]
TruthText = Annotated[bool, Checked(_truth_text, {"type": "boolean"})]
UpstreamSecret = Annotated[str, Checked(_upstream_secret, _SECRET)]
RoleName = Annotated[Literal["admin", "viewer"], _one_of("admin", "viewer")]
PeriodName = Annotated[Literal["day", "week", "month", "total"], _one_of("day", "week", "month", "total")]
Bound = Annotated[date | datetime, Checked(_bound, _BOUND)]
Instant = Annotated[datetime, Checked(_instant, _INSTANT)]
Dimensions = Annotated[tuple[usage.Dimension, ...], Checked(_dimensions, _BY)]
FormatName = Annotated[Literal["json", "csv"], _one_of("json", "csv")]
HoldStateName = Annotated[
    Literal["held", "settled", "released", "unknown"], _one_of("held", "settled", "released", "unknown")
]
KeyStateName = Annotated[
    Literal["active", "rotated", "expired", "revoked"], _one_of("active", "rotated", "expired", "revoked")
]
OutcomeName = Annotated[Literal["settle", "release"], _one_of("settle", "release")]
WebhookUrl = Annotated[str, Checked(_webhook_url, _URL)]
WebhookFormat = Annotated[Literal["standard", "slack"], _one_of("standard", "slack")]
Kinds = Annotated[tuple[str, ...], Checked(_kinds, _KINDS)]
AlertStateName = Annotated[Literal["open", "resolved"], _one_of("open", "resolved")]
DeliveryStateName = Annotated[
    Literal["pending", "delivered", "failed"], _one_of("pending", "delivered", "failed")
]
PageLimit = Annotated[int, Checked(_page_limit, _PAGE)]
Cursor = Annotated[str, Checked(_cursor, _CURSOR)]
