"""Small real MP4 clips without an encoder: H.264 pictures made of raw (I_PCM) macroblocks, one a second."""

import struct
from collections.abc import Sequence

from gateway.sandbox.images import draw_rows

_BLOCK = 16
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_SHIFT_PIXELS = 24


def draw_mp4(seed: int, width: int, height: int, seconds: int) -> bytes:
    """A playable MP4 of `seconds` pictures at one a second, the sides rounded down to multiples of 16."""
    columns, rows = max(1, width // _BLOCK), max(1, height // _BLOCK)
    wide = draw_rows(seed, columns * _BLOCK + _SHIFT_PIXELS * seconds, rows * _BLOCK)
    frames = []
    for index in range(seconds):
        left = 3 * _SHIFT_PIXELS * index
        picture = [row[left : left + 3 * columns * _BLOCK] for row in wide]
        frames.append(_sample(_slice(picture, columns, rows, index)))
    return _container(frames, columns, rows)


class _Bits:
    """Writes bits, Exp-Golomb numbers and aligned bytes."""

    def __init__(self) -> None:
        self._value = 0
        self._length = 0
        self._bytes = bytearray()

    def put(self, value: int, length: int) -> None:
        """`length` bits of `value`, the highest first."""
        self._value = (self._value << length) | value
        self._length += length
        while self._length >= 8:
            self._length -= 8
            self._bytes.append(self._value >> self._length & 0xFF)
        self._value &= (1 << self._length) - 1

    def golomb(self, value: int) -> None:
        """An unsigned Exp-Golomb number, ue(v)."""
        self.put(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self) -> None:
        """Zero bits up to the next byte."""
        if self._length:
            self.put(0, 8 - self._length)

    def raw(self, data: bytes) -> None:
        """Whole bytes; only when aligned."""
        self._bytes += data

    def end(self) -> bytes:
        """The stop bit, zeros, and everything written."""
        self.put(1, 1)
        self.align()
        return bytes(self._bytes)


def _sequence_parameters(columns: int, rows: int) -> bytes:
    bits = _Bits()
    for value in (66, 0xC0, 30):  # constrained baseline, level 3
        bits.put(value, 8)
    for value in (0, 0, 2, 0):  # id, log2_max_frame_num - 4, picture order by decoding, reference frames
        bits.golomb(value)
    bits.put(0, 1)
    bits.golomb(columns - 1)
    bits.golomb(rows - 1)
    bits.put(0b1100, 4)  # frames only, direct_8x8, no cropping, no VUI
    return b"\x67" + bits.end()


def _picture_parameters() -> bytes:
    bits = _Bits()
    bits.golomb(0)
    bits.golomb(0)
    bits.put(0, 2)  # CAVLC, no field order
    for value in (0, 0, 0):  # one slice group, one reference a list
        bits.golomb(value)
    bits.put(0, 3)  # no weighting
    for value in (0, 0, 0):  # quantisers: se(0)
        bits.golomb(value)
    bits.put(0b100, 3)  # deblocking control present
    return b"\x68" + bits.end()


def _slice(picture: Sequence[bytes], columns: int, rows: int, index: int) -> bytes:
    """One IDR picture: every macroblock raw. Samples stay in 16…235, so no start code can appear in them."""
    bits = _Bits()
    for value in (0, 7, 0):  # first macroblock, I slice, parameter set
        bits.golomb(value)
    bits.put(0, 4)  # frame_num
    bits.golomb(index % 2)  # idr_pic_id differs between neighbours
    bits.put(0, 2)  # no_output_of_prior_pics, long_term_reference
    bits.golomb(0)  # slice_qp_delta
    bits.golomb(1)  # deblocking off
    luma, blue, red = _planes(picture)
    for row in range(rows):
        for column in range(columns):
            bits.golomb(25)  # I_PCM
            bits.align()
            x, y = column * _BLOCK, row * _BLOCK
            bits.raw(b"".join(luma[y + line][x : x + _BLOCK] for line in range(_BLOCK)))
            for plane in (blue, red):
                bits.raw(b"".join(plane[y // 2 + line][x // 2 : x // 2 + 8] for line in range(8)))
    return b"\x65" + bits.end()


def _planes(picture: Sequence[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    luma, blue, red = [], [], []
    for y, row in enumerate(picture):
        triples = list(zip(row[0::3], row[1::3], row[2::3], strict=True))
        luma.append(bytes(16 + (66 * r + 129 * g + 25 * b >> 8) for r, g, b in triples))
        if y % 2 == 0:
            blue.append(bytes(128 + (-38 * r - 74 * g + 112 * b >> 8) for r, g, b in triples[::2]))
            red.append(bytes(128 + (112 * r - 94 * g - 18 * b >> 8) for r, g, b in triples[::2]))
    return luma, blue, red


def _sample(unit: bytes) -> bytes:
    return struct.pack(">I", len(unit)) + unit


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _container(frames: list[bytes], columns: int, rows: int) -> bytes:
    file_type = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    # The table of chunks needs the place of the data, and that depends on the length of the header.
    length = len(_movie(frames, columns, rows, 0))
    movie = _movie(frames, columns, rows, len(file_type) + length + 8)
    return file_type + movie + _box(b"mdat", *frames)


def _movie(frames: list[bytes], columns: int, rows: int, offset: int) -> bytes:
    width, height, count = columns * _BLOCK, rows * _BLOCK, len(frames)
    header = _full(
        b"mvhd",
        struct.pack(">IIII", 0, 0, 1000, 1000 * count),
        struct.pack(">IH10x", 0x10000, 0x100),
        _MATRIX,
        bytes(24),
        struct.pack(">I", 2),
    )
    track = _full(
        b"tkhd",
        struct.pack(">IIIII", 0, 0, 1, 0, 1000 * count),
        bytes(16),
        _MATRIX,
        struct.pack(">II", width << 16, height << 16),
        flags=3,
    )
    media_header = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1000, 1000 * count, 0x55C4, 0))
    handler = _full(b"hdlr", bytes(4), b"vide", bytes(12), b"VideoHandler\0")
    data_reference = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    information = _box(
        b"minf", _full(b"vmhd", bytes(8), flags=1), data_reference, _table(frames, width, height, offset)
    )
    return _box(b"moov", header, _box(b"trak", track, _box(b"mdia", media_header, handler, information)))


def _table(frames: list[bytes], width: int, height: int, offset: int) -> bytes:
    count = len(frames)
    sps, pps = _sequence_parameters(width // _BLOCK, height // _BLOCK), _picture_parameters()
    configuration = _box(
        b"avcC",
        bytes((1, sps[1], sps[2], sps[3], 0xFF, 0xE1)),
        struct.pack(">H", len(sps)) + sps + b"\x01" + struct.pack(">H", len(pps)) + pps,
    )
    entry = _box(
        b"avc1",
        struct.pack(">6xH16xHHII4xH32xHh", 1, width, height, 0x480000, 0x480000, 1, 24, -1),
        configuration,
    )
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, count, 1000)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(">II", 0, count), *(struct.pack(">I", len(frame)) for frame in frames)),
        _full(b"stco", struct.pack(">II", 1, offset)),
    )
