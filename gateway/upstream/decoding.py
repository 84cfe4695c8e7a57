"""Content codings of replies. The gateway asks for none, but a middle box may compress all the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

# A decoded answer may be large, but a few compressed bytes must not become a full disk.
LARGEST = 512 * 1024 * 1024
_STEP = 256 * 1024
_BY_HEADER = 47  # zlib's number for gzip or zlib, whichever the data begin with


class UndecodableError(Exception):
    """Not what its content coding says, cut short, or absurdly large."""


class Decoder:
    """Fed the chunks of one reply, gives them back plain; unknown codings pass as they are."""

    def __init__(self, coding: str) -> None:
        zipped = coding.strip().lower() in ("gzip", "x-gzip", "deflate")
        self._unzip = zlib.decompressobj(wbits=_BY_HEADER) if zipped else None
        self._size = 0

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """The plain bytes in this chunk, in bounded pieces; raises UndecodableError."""
        return (chunk,) if self._unzip is None else self._unzipped(chunk)

    def _unzipped(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            assert self._unzip is not None  # noqa: S101 - tells the type checker
            if self._unzip.eof:  # gzip may be several members in a row
                self._unzip = zlib.decompressobj(wbits=_BY_HEADER)
            try:
                plain = self._unzip.decompress(chunk, _STEP)
            except zlib.error as error:
                raise UndecodableError from error
            self._size += len(plain)
            if self._size > LARGEST:
                raise UndecodableError
            yield plain
            chunk = self._unzip.unconsumed_tail or self._unzip.unused_data

    def finish(self) -> None:
        """Raises UndecodableError when the coding's end has not been seen."""
        if self._unzip is not None and not self._unzip.eof:
            raise UndecodableError
