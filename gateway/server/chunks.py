"""Where a chunked request body ends, found beside the parser, so that the next head is held like every other."""

from __future__ import annotations

import re

from gateway.errors import broken_framing, headers_too_large

MAX_SIZE_LINE = 256  # bytes, extensions included
MAX_TRAILERS = 16 * 1024  # bytes

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")


class ChunkedBody:
    """Follows the framing of one chunked body over however many pieces it arrives in.

    The parser decodes the chunks and refuses a chunk without its line end; this counts. Trailers are swallowed:
    nothing here reads them, and the parser would append them to a header list that has been checked already.
    """

    def __init__(self) -> None:
        self.ended = False
        self._data_left = 0
        self._line = b""
        self._in_trailers = False
        self._trailer_bytes = 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Split `data` into what belongs to the parser and what follows the body (empty until `ended`).

        Raises `GatewayError`: 400 for a malformed size line, 431 for endless trailers.
        """
        position = 0
        while position < len(data) and not self._in_trailers:
            if self._data_left:
                step = min(self._data_left, len(data) - position)
                self._data_left -= step
                position += step
            else:
                position = self._size_line(data, position)
        parsed = data[:position]
        while position < len(data) and not self.ended:
            position = self._trailer(data, position)
        return (parsed + b"\r\n" if self.ended else parsed), data[position:]

    def _size_line(self, data: bytes, position: int) -> int:
        end = self._read_line(data, position)
        if len(self._line) > MAX_SIZE_LINE:
            raise broken_framing(f"A chunk's size line is longer than {MAX_SIZE_LINE} bytes.")
        if self._line.endswith(b"\n"):
            size = _SIZE_LINE.fullmatch(self._line)
            if size is None:
                raise broken_framing("A chunk's size line is malformed.")
            self._line = b""
            length = int(size[1], 16)
            self._data_left = length + 2 if length else 0  # with its CR and LF
            self._in_trailers = not length
        return end

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
