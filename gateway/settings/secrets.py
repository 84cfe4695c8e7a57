"""Which texts may serve as secrets, and how settings are shown without them. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, SecretStr

MASK = "********"
SHORTEST_SECRET = 32  # bytes of UTF-8
MAKE_ONE = "make one with: openssl rand -base64 32"

# Beginnings people leave in place, compared without case and without leading punctuation.
WELL_KNOWN_BEGINNINGS = (
    "changeme",
    "change-me",
    "change_me",
    "change me",
    "changethis",
    "secret",
    "password",
    "passw0rd",
    "test",
    "sk-1234",
    "example",
    "your-",
    "your_",
    "your ",
    "yoursecret",
    "placeholder",
    "replace",
    "default",
    "insert-",
    "insert_",
    "demo-",
    "sample",
    "todo",
    "gateway_secrets",
    "1234567",
    "0123456",
    "abcdef",
    "qwerty",
)
LONGEST_PATTERN = 16  # characters: a repetition of something this short is guessable
FEWEST_CHARACTERS = 6  # different ones; 32 random hexadecimal digits have ten or more


class Masking(Enum):
    """Marks a field whose value must not be shown as it is."""

    WHOLE = "the value is a secret"
    PASSWORD = "the value is an address that may carry a password"  # noqa: S105 - a description


def check_secret(secret: SecretStr) -> SecretStr:
    """`secret` when it may be used; ValueError says why not, without the value."""
    text = secret.get_secret_value()
    size = len(text.encode("utf-8", "surrogateescape"))
    if size < SHORTEST_SECRET:
        raise ValueError(f"has {size} bytes and needs at least {SHORTEST_SECRET}; {MAKE_ONE}")
    folded = text.casefold()
    if re.sub(r"^[\W_]+", "", folded).startswith(WELL_KNOWN_BEGINNINGS):
        raise ValueError(f"is a well-known example and not a secret; {MAKE_ONE}")
    if len(set(folded)) < FEWEST_CHARACTERS or is_repetition(folded):
        raise ValueError(f"repeats one character or a short pattern; {MAKE_ONE}")
    return secret


def is_repetition(text: str) -> bool:
    """Whether `text` is a pattern of at most LONGEST_PATTERN characters, over and over (the last may be cut)."""
    longest = min(LONGEST_PATTERN, len(text) // 2)
    return any(text[width:] == text[:-width] for width in range(1, longest + 1))


Secret = Annotated[SecretStr, AfterValidator(check_secret)]

_REVEALING_PARAMETER = re.compile(r"(?i)([?&;][^=&;]*(?:pass|pwd|secret|token|key|%)[^=&;]*=)[^&;]*")


def mask_address(address: str) -> str:
    """`address` without passwords: those before `@` and those in the query. Rather too much than too little.

    A name without a password is masked too: many proxies take a token there.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return MASK if "@" in address else address
    credentials, at, place = rest.rpartition("@")
    if at:
        name, colon, _ = credentials.partition(":")
        place = f"{name}:{MASK}@{place}" if colon else f"{MASK}@{place}"
    return f"{scheme}://" + _REVEALING_PARAMETER.sub(rf"\g<1>{MASK}", place)


def has_password(address: str) -> bool:
    """Whether `address` shows something that has to be masked."""
    return mask_address(address) != address
