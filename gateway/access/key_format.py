"""The text of team keys and admin tokens, and the digest they are stored as.

`pxg_` (or `pxa_`) + 10-character public id + `_` + 32-character secret + 6-character CRC-32 of all before it, in
base62. The checksum turns away typos and made-up keys before anything is looked up; it is no secret. The secret has
190 random bits, so a keyed fast digest is enough: there is nothing to guess offline without the pepper.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TEAM_KEY: Literal["pxg"] = "pxg"
ADMIN_TOKEN: Literal["pxa"] = "pxa"  # noqa: S105 - a prefix
LENGTH = 53
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
_SHAPE = re.compile(r"(pxg|pxa)_([0-9A-Za-z]{10})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


class ParsedKey(NamedTuple):
    """A well-formed key: its kind, public id and whole text."""

    kind: str
    public_id: str
    text: str


def make(kind: Literal["pxg", "pxa"]) -> ParsedKey:
    """A new random key of this kind."""
    public_id, secret = _random(10), _random(32)
    body = f"{kind}_{public_id}_{secret}"
    return ParsedKey(kind, public_id, body + checksum(body))


def parse(text: str, kind: Literal["pxg", "pxa"]) -> ParsedKey | None:
    """The key in `text`, or None when its shape, kind or checksum is wrong."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] != kind or checksum(text[:-6]) != match[4]:
        return None
    return ParsedKey(kind, match[2], text)


def checksum(text: str) -> str:
    """CRC-32 of `text` in base62, six characters, left-padded with `0`."""
    rest, last = divmod(zlib.crc32(text.encode("ascii")), 62 * 62)
    first, middle = divmod(rest, 62 * 62)
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


class Peppers:
    """The secrets keys are digested with: the first signs, all verify."""

    def __init__(self, peppers: Sequence[str]) -> None:
        self._keyed = [hmac.new(pepper.encode(), digestmod="sha256") for pepper in peppers]
        self.names = tuple(_digest(keyed, b"pixapi-gateway/pepper-names")[:4].hex() for keyed in self._keyed)
        """What each is called beside the keys it has signed: eight characters that tell nothing of it."""

    def sign(self, text: str) -> bytes:
        """The digest a new key is stored as: 32 bytes."""
        return _digest(self._keyed[0], text.encode())

    def digests(self, text: str) -> list[bytes]:
        """Every digest this key may be stored as, the current pepper's first."""
        return [_digest(keyed, text.encode()) for keyed in self._keyed]


def _digest(keyed: hmac.HMAC, text: bytes) -> bytes:
    """HMAC-SHA256. To copy what has taken its key already costs a third of giving it the key anew."""
    one = keyed.copy()
    one.update(text)
    return one.digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
