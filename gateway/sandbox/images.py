"""Small real PNGs, drawn from a seed: a soft diagonal gradient with a few translucent discs."""

import math
import random
import struct
import zlib

Colour = tuple[float, float, float]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DISCS = 4


def draw_png(seed: int, width: int, height: int) -> bytes:
    """A PNG (8-bit RGB) of `width` by `height` pixels; the same seed draws the same picture."""
    rows = draw_rows(seed, width, height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def draw_rows(seed: int, width: int, height: int) -> list[bytes]:
    """The picture as one `bytes` of RGB triples a row, from the top."""
    dice = random.Random(seed)  # noqa: S311 - a picture, not a secret
    hue = dice.random()
    layers = [_diagonal(width + height, hue, dice.uniform(0.08, 0.3), light) for light in (0.52, 0.7)]
    discs = [_disc(dice, width, height) for _ in range(_DISCS)]
    rows = []
    for y in range(height):
        inside = _crossings(discs, y, width)
        rows.append(b"".join(layers[lit][3 * (x0 + y) : 3 * (x1 + y)] for x0, x1, lit in inside))
    return rows


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _disc(dice: random.Random, width: int, height: int) -> tuple[float, float, float]:
    radius = min(width, height) * dice.uniform(0.12, 0.38)
    return dice.uniform(0, width), dice.uniform(0, height), radius


def _crossings(discs: list[tuple[float, float, float]], y: int, width: int) -> list[tuple[int, int, int]]:
    """The runs of a row as (from, to, lit): every disc's edge swaps the two gradients."""
    edges = []
    for cx, cy, radius in discs:
        half_squared = radius * radius - (y - cy) * (y - cy)
        if half_squared > 0:
            half = math.sqrt(half_squared)
            edges += [_clamp(cx - half, width), _clamp(cx + half, width)]
    runs, at, lit = [], 0, 0
    for edge in sorted(edges):
        runs.append((at, edge, lit))
        at, lit = edge, 1 - lit
    return [*runs, (at, width, lit)]


def _clamp(x: float, width: int) -> int:
    return max(0, min(width, round(x)))


def _diagonal(length: int, hue: float, spread: float, light: float) -> bytes:
    pixels = bytearray()
    for index in range(length):
        share = index / max(1, length - 1)
        wave = 0.5 - 0.5 * math.cos(math.pi * share)
        red, green, blue = _colour(hue + spread * wave, 0.55 - 0.15 * wave, light - 0.18 * wave)
        pixels += bytes((round(255 * red), round(255 * green), round(255 * blue)))
    return bytes(pixels)


def _colour(hue: float, saturation: float, light: float) -> Colour:
    """Hue, saturation and lightness (0 to 1; hue wraps) as red, green and blue (0 to 1)."""
    strength = saturation * min(light, 1 - light)

    def channel(offset: int) -> float:
        k = (offset + hue * 12) % 12
        return light - strength * max(-1.0, min(k - 3, 9 - k, 1.0))

    return channel(0), channel(8), channel(4)
