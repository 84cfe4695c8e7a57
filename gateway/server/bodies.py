"""What is in a request's body, and where it ends: by its length, or in chunks."""

from __future__ import annotations

import re

from gateway.errors import broken_framing, headers_too_large

MAX_SIZE_LINE = 256  # bytes, extensions included
MAX_TRAILERS = 16 * 1024  # bytes

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
_CRLF = b"\r\n"


class SizedBody:
    """A body of `length` bytes, over however many pieces it arrives in."""

    __slots__ = ("_left", "ended")

    def __init__(self, length: int) -> None:
        self.ended = not length
        self._left = length

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The body's bytes in `data`, and what follows the body (empty until `ended`)."""
        left = self._left
        piece, rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self._left -= len(piece)
        self.ended = not self._left
        return piece, rest


class ChunkedBody:
    """One chunked body, over however many pieces it arrives in. Trailers are swallowed: nothing here reads them."""

    def __init__(self) -> None:
        self.ended = False
        self._data_left = 0
        self._ending_left = 0  # of the CR and LF behind a chunk's data
        self._line = b""
        self._in_trailers = False
        self._trailer_bytes = 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The body's bytes in `data`, and what follows the body (empty until `ended`).

        Raises `GatewayError`: 400 for a malformed size line or chunk, 431 for endless trailers.
        """
        pieces: list[bytes] = []
        position = 0
        while position < len(data) and not self.ended:
            if self._data_left:
                pieces.append(data[position : position + self._data_left])
                self._data_left -= len(pieces[-1])
                position += len(pieces[-1])
            elif self._ending_left:
                position = self._ending(data, position)
            elif self._in_trailers:
                position = self._trailer(data, position)
            elif self._line or (behind := _whole_chunks(data, position, pieces)) == position:
                position = self._size_line(data, position)
            else:
                position = behind
        return b"".join(pieces), data[position:]

    def _size_line(self, data: bytes, position: int) -> int:
        end = self._read_line(data, position)
        if len(self._line) > MAX_SIZE_LINE:
            raise broken_framing(f"A chunk's size line is longer than {MAX_SIZE_LINE} bytes.")
        if self._line.endswith(b"\n"):
            size = _SIZE_LINE.fullmatch(self._line)
            if size is None:
                raise broken_framing("A chunk's size line is malformed.")
            self._line = b""
            self._data_left = int(size[1], 16)
            self._in_trailers = not self._data_left
            self._ending_left = len(_CRLF) if self._data_left else 0
        return end

    def _ending(self, data: bytes, position: int) -> int:
        expected = _CRLF[-self._ending_left :]
        found = data[position : position + self._ending_left]
        if not expected.startswith(found):
            raise broken_framing("A chunk is longer than its size line says.")
        self._ending_left -= len(found)
        return position + len(found)

    def _trailer(self, data: bytes, position: int) -> int:
        end = self._read_line(data, position)
        self._trailer_bytes += end - position
        if self._trailer_bytes > MAX_TRAILERS:
            raise headers_too_large(f"The trailers are larger than {MAX_TRAILERS} bytes.")
        if self._line.endswith(b"\n"):
            if not self._line.endswith(b"\r\n"):
                raise broken_framing("Lines of a chunked body's end are ended with CR and LF.")
            self.ended = self._line == b"\r\n"
            self._line = b""
        return end

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position) + 1 or len(data)
        self._line += data[position:end]
        return end


def _whole_chunks(data: bytes, position: int, pieces: list[bytes]) -> int:
    """Takes the chunks that begin at `position` and are whole in `data`; where the next one begins that is not.

    A client may send thousands of tiny ones at once. The last, and what is malformed, is left to be read step by step.
    """
    while (line := _SIZE_LINE.match(data, position)) is not None:
        begin = line.end()
        end = begin + int(line[1], 16)
        if end == begin or begin - position > MAX_SIZE_LINE or data[end : end + len(_CRLF)] != _CRLF:
            break
        pieces.append(data[begin:end])
        position = end + len(_CRLF)
    return position
