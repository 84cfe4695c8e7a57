"""multipart/form-data written by hand, so that every byte of it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

BOUNDARY = "----cup-7MA4YWxkTrZu0gW"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\x00--" + bytes(range(256))


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its head's lines without the name, and its bytes."""

    name: str
    data: bytes
    options: str = ""  # behind the name: '; filename="a.png"'
    lines: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        head = [f'Content-Disposition: form-data; name="{self.name}"{self.options}', *self.lines, "", ""]
        return "\r\n".join(head).encode() + self.data + b"\r\n"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def field(name: str, value: str) -> Part:
    return Part(name, value.encode())


def file(
    name: str = "image", data: bytes = PNG, filename: str = "cup.png", content_type: str | None = "image/png"
) -> Part:
    lines = () if content_type is None else (f"Content-Type: {content_type}",)
    return Part(name, data, f'; filename="{filename}"', lines)


ORDER = (field("model", "nano-banana"), field("prompt", "A cup"))


def form(parts: Iterable[Part]) -> bytes:
    """The body of a form of these parts."""
    pieces = (b"--" + BOUNDARY.encode() + b"\r\n" + part.encoded() for part in parts)
    return b"".join([*pieces, b"--" + BOUNDARY.encode() + b"--\r\n"])
