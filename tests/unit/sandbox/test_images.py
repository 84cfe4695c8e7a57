"""The drawn results: checked with decoders of this file, not with the code that made them."""

import struct
import zlib

import pytest

from gateway.sandbox.files import draw
from gateway.sandbox.images import draw_png
from gateway.sandbox.submission import frame
from gateway.sandbox.video import draw_mp4


def read_png(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of RGB; asserts signature, CRCs, chunk order and the length of the pixels."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack_from(">I", data, at + 8 + length)
        assert crc == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, colour, rest) == (8, 2, [0, 0, 0])
    pixels = zlib.decompress(chunks[1][1])
    stride = 1 + 3 * width
    assert len(pixels) == stride * height
    rows = [pixels[y * stride : (y + 1) * stride] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, [row[1:] for row in rows]


@pytest.mark.parametrize(("width", "height"), [(256, 256), (256, 171), (8, 8), (143, 256)])
def test_png_is_valid(width: int, height: int) -> None:
    got_width, got_height, rows = read_png(draw_png(7, width, height))
    assert (got_width, got_height) == (width, height)
    assert len({row[i : i + 3] for row in rows for i in range(0, len(row), 3)}) > 8


def test_png_depends_on_the_seed_alone() -> None:
    assert draw_png(1, 64, 64) == draw_png(1, 64, 64)
    assert draw_png(1, 64, 64) != draw_png(2, 64, 64)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (["1024x1024"], (256, 256)),
        (["1536x1024"], (256, 171)),
        (["16:9"], (256, 144)),
        (["auto", "720x1280"], (144, 256)),
        (["100x50"], (100, 50)),
        (["99999x1"], (256, 8)),
        ([], (256, 256)),
    ],
)
def test_frame_keeps_the_aspect(sizes: list[str], expected: tuple[int, int]) -> None:
    assert frame(sizes, 256, (1024, 1024)) == expected


def boxes(data: bytes) -> dict[bytes, bytes]:
    """The boxes of one level of an MP4; asserts that they fill `data` exactly."""
    found, at = {}, 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        assert length >= 8
        found[kind] = data[at + 8 : at + length]
        at += length
    assert at == len(data)
    return found


def test_mp4_tables_point_at_the_pictures() -> None:
    data = draw_mp4(5, 160, 90, 3)
    top = boxes(data)
    assert list(top) == [b"ftyp", b"moov", b"mdat"]
    media = boxes(boxes(boxes(top[b"moov"])[b"trak"])[b"mdia"])
    table = boxes(boxes(media[b"minf"])[b"stbl"])
    count, *lengths = struct.unpack(">I3I", table[b"stsz"][8:])
    (offset,) = struct.unpack(">I", table[b"stco"][8:])
    assert count == 3
    for length in lengths:
        (unit,) = struct.unpack_from(">I", data, offset)
        assert unit == length - 4
        assert data[offset + 4] & 0x1F == 5
        assert b"\0\0\1" not in data[offset + 4 : offset + length]
        offset += length
    assert offset == len(data)


@pytest.mark.parametrize(
    "name", ["../etc", "0123456789abcdef-300x300.png", "0123456789abcdef-64x64-3.png", "x.mp4"]
)
def test_draw_refuses_other_names(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        draw(name)
