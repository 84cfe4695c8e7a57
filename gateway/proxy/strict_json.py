"""Read a JSON body once, so strictly that no other reader can see another request in the same bytes.

The body is priced by what is read here and forwarded unchanged; whatever two parsers might read differently
(duplicate keys, NaN, trailing data, a BOM, lone surrogates) is refused instead of interpreted.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec

from gateway import errors

MAX_DEPTH = 32
# Far beyond any generation request; keeps the time a hostile body can take from the event loop small.
MAX_VALUES = 20_000
MAX_INTEGER_DIGITS = 18

_WHITE_SPACE = " \t\r\n"
_BOM = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes, max_depth: int = MAX_DEPTH, *, exact: bool = False) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises `errors.bad_request`, and nothing else, when `body` is not exactly one JSON object in UTF-8 whose
    objects have no key twice, with at most `max_depth` levels, integers of at most 18 digits and finite numbers.
    With `exact` fractions and larger numbers are there as Decimal, for who knows their fields to refuse them by name.
    """
    if body.startswith(_BOM):
        raise errors.bad_request("The JSON body starts with a byte order mark; send plain UTF-8.")
    if body.count(b"[") + body.count(b"{") > max_depth or body.count(b",") > MAX_VALUES:
        _check_structure(body, max_depth)
    value = _decode(body, _EXACT_DECODER if exact else _DECODER)
    if not isinstance(value, dict):
        raise errors.bad_request(f"The JSON body is {_kind(value)}; an object ({{…}}) is expected.")
    if b"\\u" in body and _SURROGATE.search(body) is not None:
        _check_surrogates(value)
    return value


def _decode(body: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        text = body.decode("utf-8")
        if text[:1] == "{":  # as nearly always: without two searches for white space that is not there
            value, end = decoder.raw_decode(text)
            more = text[end:].lstrip(_WHITE_SPACE)
            if more:
                raise json.JSONDecodeError("Extra data", text, len(text) - len(more))
            return value
        return decoder.decode(text)
    except UnicodeDecodeError as error:
        raise errors.bad_request(f"The JSON body is not valid UTF-8 at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        if not body.strip(_WHITE_SPACE.encode()):
            raise errors.bad_request("The body is empty; a JSON object is expected.") from None
        raise errors.bad_request(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None


def _check_structure(body: bytes, max_depth: int) -> None:
    """Depth and number of values, before any recursive parser sees them."""
    # A lower bound of the real quotes, so that not even removing the strings can take long.
    if body.count(b'"') - body.count(b'\\"') > 4 * MAX_VALUES:
        _refuse_values()
    bare = _STRING.sub(b"", body)
    brackets = bare.translate(None, _NO_BRACKETS)
    depth = 0
    for bracket in brackets[: 2 * MAX_VALUES]:
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                raise errors.bad_request(
                    f"The JSON body is nested too deeply; {max_depth} levels are allowed."
                )
        else:
            depth -= 1
    if len(brackets) > 2 * MAX_VALUES or bare.count(b",") > MAX_VALUES:
        _refuse_values()


def _refuse_values() -> NoReturn:
    raise errors.bad_request(f"The JSON body holds too many values; {MAX_VALUES:,} are allowed.")


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise errors.bad_request(
            "The JSON body holds half of a surrogate pair (\\ud800 to \\udfff alone); it is not text."
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise errors.bad_request(f"The field {_shown(key)} is there twice in one JSON object.")
            seen.add(key)
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS and len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise errors.bad_request(
            f"The JSON body holds an integer of more than {MAX_INTEGER_DIGITS} digits; send it as text."
        )
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise errors.bad_request("The JSON body holds a number beyond the range of a double.")
    return number


def _exact_integer(text: str) -> int | Decimal:
    # int() of very many digits takes long, and then raises.
    return int(text) if len(text) <= MAX_INTEGER_DIGITS else Decimal(text)


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise errors.bad_request("The JSON body holds a number with an absurd exponent.") from None


def _no_constant(name: str) -> NoReturn:
    raise errors.bad_request(f"The JSON body holds {name}, which is not JSON.")


def _shown(key: str) -> str:
    """A key for a message: short, printable."""
    return ascii(key if len(key) <= 60 else key[:60] + "...")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "a number"


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_finite, parse_constant=_no_constant
)
_EXACT_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_exact_integer, parse_float=_exact, parse_constant=_no_constant
)
