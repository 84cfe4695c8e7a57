"""Whether what a link in an answer leads to really is a picture or a clip."""

from __future__ import annotations

import struct
import zlib

import httpx

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type


def fetch(url: str) -> bytes:
    """What a browser without a key gets at `url`."""
    answer = httpx.get(url, timeout=30, trust_env=False)
    assert answer.status_code == 200, f"{url}: {answer.status_code}"
    return answer.content


def png_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a whole PNG of 8-bit samples; fails when a checksum or the pixels do not fit."""
    assert data.startswith(PNG_SIGNATURE), data[:16]
    chunks = dict[bytes, bytes]()
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert zlib.crc32(kind + body) == checksum, f"{kind!r} is damaged"
        chunks[kind] = chunks.get(kind, b"") + body
        position += 12 + length
    assert b"IEND" in chunks, "the file ends early"
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert depth == 8
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + width * CHANNELS[colour])
    return width, height


def is_mp4(data: bytes) -> bool:
    """Whether the file has the two boxes no player can do without."""
    return data[4:8] == b"ftyp" and b"moov" in data
