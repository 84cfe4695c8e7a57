"""The images in a complete 2xx body of a synchronous call.

It may be 100 MB of base64, so it is scanned as it passes and never kept or parsed as a whole. A small one, as most are,
is parsed at once, which says the same: where a parser might not, the scanner decides.
"""

from __future__ import annotations

import re

import msgspec

MAX_NESTING = 256
MAX_MARKS = 50_000  # brackets, commas and colons: far beyond any answer, little time for a hostile one
MAX_SCALAR = 1024  # bytes of one number or literal, and of a top-level key
SMALL = 16 * 1024  # bytes; it cannot hold too many marks

_TOKEN = re.compile(rb'[{}\[\],:"]|[^{}\[\],:"\x20\t\r\n]+')
_LONG_NUMBER = re.compile(rb"[-+.0-9eE]{%d}" % (MAX_SCALAR + 1))
_SCALAR = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")


class Answer(msgspec.Struct, frozen=True):
    """What a whole body was."""

    is_object: bool  # one complete JSON object
    images: int | None  # non-empty objects in its top-level `data` list; None when there is no such list


def answer_in(body: bytes) -> Answer:
    """What a body in one piece holds."""
    if len(body) <= SMALL and (answer := _parsed(body)) is not None:
        return answer
    scanner = AnswerScanner()
    scanner.feed(body)
    return scanner.finish()


# Where in the grammar the scanner is: what may come next. Plain numbers for speed; values first, then keys.
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON_NEXT, _COMMA_OR_END, _NOTHING = range(7)
_OBJECT, _OBJECT_END, _LIST, _COLON, _COMMA, _BACKSLASH = b"{}[:,\\"


class AnswerScanner:
    """Fed a body in chunks cut anywhere; checks JSON's structure, not what is inside strings."""

    def __init__(self) -> None:
        self._open = bytearray()  # the brackets that are open, outermost first
        self._expect = _VALUE
        self._broken = False
        self._marks = 0
        self._scalar = b""  # a number or literal that may go on in the next chunk
        self._in_string = False
        self._odd_backslashes = False  # the last chunk ended inside a string with an unpaired backslash
        self._key: bytearray | None = None  # the top-level key being read
        self._at_data = False  # the last top-level key is "data"
        self._in_data = False  # inside the list under it
        self._images: int | None = None

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        if self._scalar:
            chunk, self._scalar = self._scalar + chunk, b""
        position = 0
        while position < len(chunk) and not self._broken:
            position = self._string(chunk, position) if self._in_string else self._tokens(chunk, position)

    def finish(self) -> Answer:
        """The body is complete: what it held."""
        whole = self._expect == _NOTHING and not (self._broken or self._scalar)
        return Answer(whole, self._images if whole else None)

    def _tokens(self, chunk: bytes, position: int) -> int:
        """Read what is outside strings, up to the next string or the chunk's end."""
        for match in _TOKEN.finditer(chunk, position):
            token = match[0]
            if token == b'"':
                self._begin_string()
                return match.end()
            if token in b"{}[],:":
                self._structure(token[0])
            elif len(token) > MAX_SCALAR:
                self._broken = True
            elif match.end() == len(chunk):
                self._scalar = token
            elif self._expect <= _VALUE_OR_END and self._open and _SCALAR.fullmatch(token) is not None:
                self._end_value()
            else:
                self._broken = True
            if self._broken:
                break
        return len(chunk)

    def _structure(self, byte: int) -> None:
        self._marks += 1
        if self._marks > MAX_MARKS:
            self._broken = True
        elif byte in b"{[":
            self._begin_container(byte)
        elif byte in b"}]":
            self._end_container(byte)
        elif byte == _COLON and self._expect == _COLON_NEXT:
            self._expect = _VALUE
        elif byte == _COMMA and self._expect == _COMMA_OR_END:
            self._expect = _KEY if self._open[-1] == _OBJECT else _VALUE
        else:
            self._broken = True

    def _begin_container(self, byte: int) -> None:
        depth = len(self._open)
        if self._expect > _VALUE_OR_END or depth >= MAX_NESTING or (depth == 0 and byte != _OBJECT):
            self._broken = True
            return
        if depth == 1 and byte == _LIST and self._at_data:
            self._in_data = True
            self._images = 0
        self._open.append(byte)
        self._expect = _KEY_OR_END if byte == _OBJECT else _VALUE_OR_END

    def _end_container(self, byte: int) -> None:
        opening, empty = (_OBJECT, _KEY_OR_END) if byte == _OBJECT_END else (_LIST, _VALUE_OR_END)
        if self._expect not in (empty, _COMMA_OR_END) or self._open[-1] != opening:
            self._broken = True
            return
        self._open.pop()
        if len(self._open) == 1:
            self._in_data = False
        self._end_value()

    def _end_value(self) -> None:
        self._expect = _COMMA_OR_END if self._open else _NOTHING

    def _begin_string(self) -> None:
        depth = len(self._open)
        if self._expect > _KEY_OR_END or depth == 0:
            self._broken = True
            return
        self._in_string, self._odd_backslashes = True, False
        self._key = bytearray() if depth == 1 and self._expect >= _KEY else None
        if self._in_data and depth == 3 and self._expect == _KEY_OR_END:
            self._images = (self._images or 0) + 1  # the first key of an item

    def _string(self, chunk: bytes, position: int) -> int:
        """Skip to the end of the string. Only backslashes right before a quote matter, so this runs at memchr's
        speed whatever else is escaped."""
        quote = chunk.find(b'"', position)
        while quote >= 0 and self._odd_before(chunk, position, quote):
            quote = chunk.find(b'"', quote + 1)
        end = len(chunk) if quote < 0 else quote
        if self._key is not None and len(self._key) <= MAX_SCALAR:
            self._key += chunk[position:end]
        if quote < 0:
            self._odd_backslashes = self._odd_before(chunk, position, end)
            return end
        self._end_string()
        return quote + 1

    def _odd_before(self, chunk: bytes, start: int, stop: int) -> bool:
        """Whether an odd number of backslashes precedes `stop`, in the string that goes on at `start`."""
        first = stop
        while first > start and chunk[first - 1] == _BACKSLASH:
            first -= 1
        odd = (stop - first) % 2 == 1
        return odd != self._odd_backslashes if first == start else odd

    def _end_string(self) -> None:
        self._in_string = False
        if self._expect <= _VALUE_OR_END:
            self._end_value()
            return
        self._expect = _COLON_NEXT
        if self._key is not None:
            self._at_data = _is_data(self._key)
            self._key = None
            if self._at_data:
                self._images = None  # of a key that is there twice, the last counts


def _is_data(key: bytearray) -> bool:
    if b"\\" not in key:
        return key == b"data"
    try:
        return msgspec.json.decode(b'"' + key + b'"', type=str) == "data"
    except ValueError:
        return False


def _parsed(body: bytes) -> Answer | None:
    """What a small body is by a parser; None where the scanner may see it differently: it does not look into strings,
    but has limits for nesting and numbers."""
    if body.count(b"[") + body.count(b"{") > MAX_NESTING or _LONG_NUMBER.search(body) is not None:
        return None
    try:
        document = msgspec.json.decode(body)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return Answer(False, None)
    data = document.get("data")
    if not isinstance(data, list):
        return Answer(True, None)
    return Answer(True, len([item for item in data if item and isinstance(item, dict)]))
