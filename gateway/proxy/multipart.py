"""Read a multipart/form-data body while its raw bytes are forwarded unchanged.

Text fields are read, files only counted. Whatever another reader of the same bytes might take for another
form (a second boundary, bytes before or after the form, a priced field twice or sent as a file, `name*=`,
transfer encodings) is refused instead of interpreted.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.poly1305 import Poly1305
from multipart import MultipartError, ParserError, PushMultipartParser

from gateway import errors

# The fields that price a request: each at most once, and as text.
PRICED_FIELDS = frozenset(
    {"model", "n", "size", "quality", "resolution", "image_size", "duration", "seconds", "async"}
)
MAX_BOUNDARY = 70  # RFC 2046, 5.1.1

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - the grammar's word
_OPTION = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=(?:"([^"\\]*(?:\\.[^"\\]*)*)"|({_TOKEN}))')
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=?*~!#$%&|^`{}-]{1,70}")
_IMAGE_FIELD = re.compile(r"(?:image|images|input_image|image_url|image_urls|mask)(?:\[[0-9]*\])?")
_PLAIN_CODINGS = frozenset({"7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a form may hold: bytes in all, files and bytes of one, text fields and their bytes in all."""

    max_bytes: int = 64 * 1024 * 1024
    max_files: int = 16
    max_file_bytes: int = 25 * 1024 * 1024
    max_fields: int = 100
    max_text_bytes: int = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FormFile:
    """A part that was counted, not read. `filename` is None for an image given as text (a URL)."""

    field: str
    filename: str | None
    content_type: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Form:
    """The text fields (of one sent twice, the last; priced ones are never there twice) and the files."""

    fields: dict[str, str]
    files: tuple[FormFile, ...]


class FormReader:
    """Fed the body as it arrives; holds nothing but the text fields. `secret` is for its `digest`.

    `feed` and `finish` raise `errors.too_large` beyond a limit and `errors.bad_request` for anything that is
    not one complete form; the reader is of no further use then.
    """

    def __init__(self, boundary: bytes, limits: FormLimits, secret: bytes) -> None:
        self._limits = limits
        self._key = hashlib.sha256(secret).digest()
        self._opening = b"--" + boundary
        self._closing = b"--" + boundary + b"--"
        self._parser = _Parser(boundary, strict=True)
        self._held = b""  # the newest bytes, until it is known that they are not the form's end
        self._started = False
        self._size = 0
        self._part: _Part | None = None
        self._text = bytearray()
        self._text_size = 0
        self._field_count = 0
        self._fields: dict[str, str] = {}
        self._files: list[FormFile] = []
        self._hash = hashlib.sha256()
        self._part_hash = Poly1305(self._key)

    @property
    def digest(self) -> bytes:
        """32 bytes for the finished form's parts, the same whatever its boundary: SDKs draw a new one for each try.

        Only who knows the secret could make two forms with one digest: parts go into it by Poly1305, since without
        instructions for it SHA-256 would cost more than everything else that is done with a large form.
        """
        return self._hash.digest()

    def feed(self, chunk: bytes | bytearray) -> None:
        """The next bytes of the body."""
        self._size += len(chunk)
        if self._size > self._limits.max_bytes:
            raise errors.too_large(f"The form is larger than {self._limits.max_bytes:,} bytes.")
        # The end is fed alone, so that the parser refuses whatever follows an earlier end.
        keep = len(self._closing) + 4
        if self._started and len(chunk) >= keep:
            self._parse(b"".join((self._held, memoryview(chunk)[:-keep])))  # copies what is large once
            self._held = bytes(chunk[-keep:])
            return
        data = self._held + chunk
        if not self._started:
            if len(data) < len(self._opening) + 2:
                self._held = data
                return
            self._check_start(data)
        self._parse(data[:-keep])
        self._held = data[-keep:]

    def finish(self) -> Form:
        """The body is complete: what it held."""
        end = self._held.removesuffix(b"\r\n")
        if not self._started:
            self._check_start(end)
        if not end.endswith(self._closing):
            raise errors.bad_request("The form is incomplete or has bytes after its closing boundary.")
        self._parse(end)
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed(error) from None
        return Form(self._fields, tuple(self._files))

    def _check_start(self, data: bytes) -> None:
        if not data.removeprefix(b"\r\n").startswith(self._opening):
            raise errors.bad_request("The form does not start with the boundary of its Content-Type.")
        self._started = True

    def _parse(self, data: bytes) -> None:
        if not data:
            return
        try:
            for event in self._parser.parse(data):
                if isinstance(event, _Part):
                    self._begin(event)
                elif self._part is not None and event is not None:
                    self._payload(self._part, event)
                elif self._part is not None:
                    self._end(self._part)
        except MultipartError as error:
            raise _malformed(error) from None

    def _begin(self, part: _Part) -> None:
        self._part = part
        self._part_hash = Poly1305(self._key)
        if part.is_file:
            if part.name in PRICED_FIELDS:
                raise errors.bad_request(
                    f"The field '{part.name}' must be sent as text, without a file name."
                )
            if len(self._files) >= self._limits.max_files:
                raise errors.too_large(f"The form holds more than {self._limits.max_files} files.")
            return
        self._field_count += 1
        if self._field_count > self._limits.max_fields:
            raise errors.too_large(f"The form holds more than {self._limits.max_fields} text fields.")
        if part.name in PRICED_FIELDS and part.name in self._fields:
            raise errors.bad_request(f"The field '{part.name}' is there twice; send it once.")
        self._text = bytearray()

    def _payload(self, part: _Part, data: bytes) -> None:
        self._part_hash.update(data)
        if part.is_file:
            if part.bytes_received > self._limits.max_file_bytes:
                raise errors.too_large(
                    f"A file in the field {part.shown} is larger than {self._limits.max_file_bytes:,} bytes."
                )
            return
        self._text_size += len(data)
        if self._text_size > self._limits.max_text_bytes:
            raise errors.too_large(
                f"The form's text fields are larger than {self._limits.max_text_bytes:,} bytes in all."
            )
        self._text += data

    def _end(self, part: _Part) -> None:
        head = repr((part.name, part.filename, part.content_type)).encode("utf-8", "surrogatepass")
        self._hash.update(hashlib.sha256(head).digest() + self._part_hash.finalize())
        if part.is_file:
            self._files.append(FormFile(part.name, part.filename, part.content_type, part.bytes_received))
            return
        try:
            self._fields[part.name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            raise errors.bad_request(f"The field {part.shown} is not valid UTF-8.") from None


def boundary_of(content_type: bytes) -> bytes:
    """The boundary named by a request's Content-Type header.

    Raises `errors.unsupported_media_type` when it is not multipart/form-data, `errors.bad_request` when it
    does not name exactly one well-formed boundary of at most 70 characters.
    """
    text = content_type.decode("latin-1").strip(" \t")
    kind = text.partition(";")[0]
    if kind.strip(" \t").lower() != "multipart/form-data":
        raise errors.unsupported_media_type("A form is expected here: Content-Type multipart/form-data.")
    options = _options(text[len(kind) :])
    if options is None or not options.keys() <= {"boundary", "charset"}:
        raise errors.bad_request("The Content-Type of the form is malformed.")
    boundary = options.get("boundary", "")
    if not boundary:
        raise errors.bad_request(
            "The Content-Type names no boundary; let your HTTP library write this header."
        )
    if len(boundary) > MAX_BOUNDARY:
        raise errors.bad_request(f"The form's boundary is longer than {MAX_BOUNDARY} characters.")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise errors.bad_request("The form's boundary holds characters that are not allowed in one.")
    return boundary.encode("ascii")


class _Part:
    """The head of one part. Replaces the library's own, which keeps the last of contradicting options."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.bytes_received = 0  # counted by the parser
        self.complete = False
        found = dict(headers)
        if len(found) != len(headers):
            raise ParserError("A part has the same header twice")
        disposition = found.get("Content-Disposition", "")
        kind = disposition.partition(";")[0]
        options = _options(disposition[len(kind) :].rstrip(" \t"))
        if kind.strip(" \t").lower() != "form-data" or options is None or "name" not in options:
            raise ParserError("A part has no well-formed Content-Disposition with a name")
        if "name*" in options:
            raise ParserError("A part's name is written as name*=, which forms do not allow")
        coding = found.get("Content-Transfer-Encoding", "binary").strip().lower()
        if coding not in _PLAIN_CODINGS:
            raise ParserError("A part has a Content-Transfer-Encoding; send its bytes as they are")
        self.name = options["name"]
        self.filename = options.get("filename", options.get("filename*"))
        self.content_type = found.get("Content-Type")
        self.is_file = self.filename is not None or _IMAGE_FIELD.fullmatch(self.name) is not None

    @property
    def shown(self) -> str:
        """The name for a message: short, printable."""
        return ascii(self.name if len(self.name) <= 60 else self.name[:60] + "...")


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """The push parser, with our reading of a part's head (the hook it documents for subclasses)."""

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> Any:
        return _Part(headerlist)


def _options(text: str) -> dict[str, str] | None:
    """`; key=value` pairs, keys in lower case; None when malformed or when a key is there twice."""
    options: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            return None
        key = match[1].lower()
        if key in options:
            return None
        options[key] = match[3] if match[2] is None else match[2]
        position = match.end()
    return options


def _malformed(error: MultipartError) -> errors.GatewayError:
    return errors.bad_request(f"The form is malformed: {error.args[0]}.")
