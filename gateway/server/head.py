"""Request heads: what is refused before there is a request, and where the body after a head ends. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import GatewayError, broken_framing, headers_too_large, uri_too_long

MAX_HEAD = 16 * 1024  # bytes, from the method to the empty line
MAX_TARGET = 8 * 1024  # bytes
MAX_FIELDS = 100

Field = tuple[bytes, bytes]

# IANA's registry: what is none of them is no HTTP.
METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
    b"PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK "
    b"UNSUBSCRIBE".split()
)
_LONGEST_METHOD = 32
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]*+) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_UPGRADE = frozenset((b"upgrade", b"http2-settings"))
# A head of HTTP/1.1 without any of these has no body, and lets the connection live.
_TELLING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect", *_UPGRADE))


class Framing(NamedTuple):
    """What a head says of its body, and of the connection after it."""

    length: int = 0  # of the body in bytes; 0 without one and when chunked
    chunked: bool = False
    closes: bool = False  # the connection ends after this request
    expects_continue: bool = False
    offers_upgrade: bool = False
    has_body: bool = False  # whether any byte of the request follows its head


class Head(NamedTuple):
    """A request as its head tells it. `fields` have names in lower case and values without white space around them;
    any offer to upgrade is taken out."""

    method: str
    path: bytes  # as it was sent
    query: bytes
    version: str
    fields: list[Field]
    framing: Framing


_PLAIN = Framing()


def read_head(data: bytes) -> Head:
    """Read one whole head, `data` ending with its empty line.

    The only reader of where a body ends, so nothing is let pass that another could read differently. Raises
    `GatewayError`: 400 for anything malformed, ambiguous or meant for a forward proxy, 414 and 431 beyond the limits.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise broken_framing("The request line is malformed: METHOD /path HTTP/1.1 is expected.")
    method, target, version = line.groups()
    if len(target) > MAX_TARGET:
        raise uri_too_long(MAX_TARGET)
    if len(data) > MAX_HEAD:
        raise _head_too_large()
    _check_line(method, target, version)
    if not _FIELDS.fullmatch(data, line.end()):
        raise broken_framing("A header field is malformed.")
    halves = [text.partition(b":") for text in data[:-4].split(b"\r\n")[1:]]
    if len(halves) > MAX_FIELDS:
        raise headers_too_large(f"The request has more than {MAX_FIELDS} header fields.")
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in halves]
    path, _, query = target.partition(b"?")
    telling = [field for field in fields if field[0] in _TELLING]
    framing = _framing(telling, version) if telling or version == b"1.0" else _PLAIN
    if framing.offers_upgrade:
        fields = _without_upgrade(fields)
    return Head(method.decode(), path, query, version.decode(), fields, framing)


def check_unfinished(data: bytes) -> None:
    """Refuse the beginning of a head as soon as no continuation could save it.

    Raises `GatewayError`: 414 or 431 when a limit is crossed, 400 for what cannot become a head.
    """
    if not b"A" <= data[:1] <= b"Z":
        raise broken_framing("A request starts with its method; this port speaks plain HTTP/1.1.")
    if data.find(b"\n", 0, MAX_TARGET + _LONGEST_METHOD) < 0 and len(data) >= MAX_TARGET + _LONGEST_METHOD:
        raise uri_too_long(MAX_TARGET)
    if len(data) >= MAX_HEAD:
        raise _head_too_large()
    ends = data.count(b"\r\n")  # counted, not searched for: this is asked again for each piece of a head
    if data.count(b"\n") != ends or data.count(b"\r") - data.endswith(b"\r") != ends:
        raise broken_framing("Lines of a request head end with CR and LF.")


def _check_line(method: bytes, target: bytes, version: bytes) -> None:
    if version not in (b"1.1", b"1.0"):
        raise broken_framing("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if method == b"CONNECT" or not target.startswith(b"/") or b"#" in target:
        raise broken_framing(
            "The request target must be a path that starts with '/'; this is no forward proxy."
        )
    if method not in METHODS:
        raise broken_framing("The request's method is none of HTTP.")


def _framing(telling: list[Field], version: bytes) -> Framing:
    """What these fields say, all of a head that are among `_TELLING`."""
    codings: list[bytes] = []
    lengths: list[bytes] = []
    closes = version == b"1.0"
    expects_continue = offers_upgrade = False
    for name, value in telling:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"connection":
            closes |= b"close" in _options(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"expect":
            expects_continue |= value.lower() == b"100-continue" and version != b"1.0"
        else:
            offers_upgrade = True
    length = _body_length(lengths, codings, version) if codings or lengths else 0
    return Framing(length, bool(codings), closes, expects_continue, offers_upgrade, bool(codings or length))


def _body_length(lengths: list[bytes], codings: list[bytes], version: bytes) -> int:
    if codings:
        if lengths:
            raise broken_framing("Transfer-Encoding and Content-Length exclude each other.")
        if codings != [b"chunked"] or version == b"1.0":
            raise broken_framing("The only transfer coding understood is a single 'chunked', in HTTP/1.1.")
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise broken_framing("Content-Length must be given once, as a decimal number.")
    return int(lengths[0])


def _without_upgrade(fields: list[Field]) -> list[Field]:
    """The fields without what offers another protocol.

    Every Java HttpClient offers h2c with each request on plain http. A server may ignore the offer (RFC 9110, section
    7.8), and nothing behind us should see it.
    """
    left: list[Field] = []
    for name, value in fields:
        if name == b"connection":
            kept = [option for option in _options(value) if option not in _UPGRADE]
            if kept:
                left.append((name, b", ".join(kept)))
        elif name not in _UPGRADE:
            left.append((name, value))
    return left


def _options(value: bytes) -> list[bytes]:
    """What a Connection header names, in lower case."""
    return [option for part in value.lower().split(b",") if (option := part.strip(b" \t"))]


def _head_too_large() -> GatewayError:
    return headers_too_large(f"The request head is larger than {MAX_HEAD} bytes.")
