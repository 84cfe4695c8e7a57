"""Request heads: what is refused before there is a request, and where the body after a head ends. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.errors import broken_framing, headers_too_large, uri_too_long

MAX_HEAD = 16 * 1024  # bytes, from the method to the empty line
MAX_TARGET = 8 * 1024  # bytes
MAX_FIELDS = 100

_CHUNKED = -1
_MAX_METHOD = 32  # longer than any method the parser knows
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]*+) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+\r\n")
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding|upgrade):[ \t]*+([^\r]*)", re.IGNORECASE)
_UPGRADE = re.compile(rb"(?<=\n)(?:upgrade|http2-settings):[^\r]*\r\n", re.IGNORECASE)
_CONNECTION = re.compile(rb"(?<=\n)connection:([^\r]*)\r\n", re.IGNORECASE)
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
_LENGTH = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Head:
    """A head that may be parsed: its bytes without any offer to upgrade, and the framing of what follows it.

    `length` is the body's length in bytes, 0 without a body, meaningless when `chunked`.
    """

    data: bytes
    length: int
    chunked: bool

    @property
    def has_body(self) -> bool:
        """Whether any byte of this request follows its head."""
        return self.chunked or self.length > 0


def read_head(data: bytes) -> Head:
    """Check one whole head, `data` ending with its empty line.

    Stricter than the parser behind it, so both always agree on where the body ends. Raises `GatewayError`: 400
    for anything malformed, ambiguous or meant for a forward proxy, 414 and 431 beyond the limits.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise broken_framing("The request line is malformed: METHOD /path HTTP/1.1 is expected.")
    method, target, version = line.groups()
    if len(target) > MAX_TARGET:
        raise uri_too_long(MAX_TARGET)
    if len(data) > MAX_HEAD:
        raise _head_too_large()
    if version not in (b"1.1", b"1.0"):
        raise broken_framing("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if method == b"CONNECT" or not target.startswith(b"/") or b"#" in target:
        raise broken_framing(
            "The request target must be a path that starts with '/'; this is no forward proxy."
        )
    if data.count(b"\n", line.end()) > MAX_FIELDS + 1:
        raise headers_too_large(f"The request has more than {MAX_FIELDS} header fields.")
    if not _FIELDS.fullmatch(data, line.end()):
        raise broken_framing("A header field is malformed.")
    return _framed(data, version)


def check_unfinished(data: bytes) -> None:
    """Refuse the beginning of a head as soon as no continuation could save it.

    Raises `GatewayError`: 414 or 431 when a limit is crossed, 400 for what cannot become a head.
    """
    if not b"A" <= data[:1] <= b"Z":
        raise broken_framing("A request starts with its method; this port speaks plain HTTP/1.1.")
    if data.find(b"\n", 0, MAX_TARGET + _MAX_METHOD) < 0 and len(data) >= MAX_TARGET + _MAX_METHOD:
        raise uri_too_long(MAX_TARGET)
    if len(data) >= MAX_HEAD:
        raise _head_too_large()
    if _BARE_LINE_END.search(data):
        raise broken_framing("Lines of a request head end with CR and LF.")


def _framed(data: bytes, version: bytes) -> Head:
    found = _FRAMING.findall(data)
    if not found:
        return Head(data, 0, False)
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in found]
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    length = _body_length(lengths, codings, version)
    offers_upgrade = len(fields) > len(lengths) + len(codings)
    return Head(_without_upgrade(data) if offers_upgrade else data, length, length == _CHUNKED)


def _body_length(lengths: list[bytes], codings: list[bytes], version: bytes) -> int:
    if codings:
        if lengths:
            raise broken_framing("Transfer-Encoding and Content-Length exclude each other.")
        if codings != [b"chunked"] or version == b"1.0":
            raise broken_framing("The only transfer coding understood is a single 'chunked', in HTTP/1.1.")
        return _CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise broken_framing("Content-Length must be given once, as a decimal number.")
    return int(lengths[0])


def _without_upgrade(data: bytes) -> bytes:
    """The head without what offers another protocol.

    The parser gives up the body of a request that offers an upgrade, and every Java HttpClient offers h2c with
    each request on plain http. A server may ignore the offer (RFC 9110, section 7.8).
    """
    return _CONNECTION.sub(_plain_connection, _UPGRADE.sub(b"", data))


def _plain_connection(match: re.Match[bytes]) -> bytes:
    tokens = [token.strip(b" \t") for token in match[1].split(b",")]
    kept = [token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings", b"")]
    return b"connection: " + b", ".join(kept) + b"\r\n" if kept else b""


def _head_too_large() -> Exception:
    return headers_too_large(f"The request head is larger than {MAX_HEAD} bytes.")
