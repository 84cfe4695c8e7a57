"""Reading a paid request's body as a stream: hashes for the journal, fields for the work, no file kept."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import Request

from gateway.sandbox.errors import SandboxError, invalid
from gateway.sandbox.journal import BODY_TEXT_LIMIT, Entry, Journal, Part

_JSON_LIMIT = 64 * 1024 * 1024
_FIELD_LIMIT = 1024 * 1024
_PARTS_LIMIT = 256


@dataclass(slots=True)
class Intake:
    """The fields of a body and how many images came with it as files.

    Fields are JSON values for a JSON body and texts for a form.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    files: int = 0
    is_form: bool = False


async def read_body(request: Request, entry: Entry, journal: Journal) -> Intake:
    """Read the whole body, note its digest, length and parts in `entry`. Raises SandboxError (400, 413)."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == "multipart/form-data":
        boundary = options.get("boundary")
        if not boundary:
            raise invalid("The multipart body has no boundary.")
        return await _read_form(request, entry, boundary)
    return await _read_json(request, entry, journal)


async def _read_json(request: Request, entry: Entry, journal: Journal) -> Intake:
    digest = hashlib.sha256()
    body = bytearray()
    async for chunk in request.stream():
        digest.update(chunk)
        entry.body_length += len(chunk)
        body += chunk
        if len(body) > _JSON_LIMIT:
            raise SandboxError(413, "The JSON body is too large.")
    entry.body_sha256 = digest.hexdigest()
    if len(body) < BODY_TEXT_LIMIT:
        journal.keep_text(entry, body.decode("utf-8", "replace"))
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    return Intake(value)


async def _read_form(request: Request, entry: Entry, boundary: str) -> Intake:
    digest = hashlib.sha256()
    form = _Form(entry)
    try:
        with PushMultipartParser(boundary, max_segment_count=_PARTS_LIMIT) as parser:
            async for chunk in request.stream():
                digest.update(chunk)
                entry.body_length += len(chunk)
                for event in parser.parse(chunk) if chunk else ():
                    form.take(event)
    except MultipartError as error:
        raise invalid(f"The multipart body cannot be read: {error}") from error
    entry.body_sha256 = digest.hexdigest()
    return form.intake


class _Form:
    """Takes the parser's events: text fields into the intake, a digest of every part into the entry."""

    def __init__(self, entry: Entry) -> None:
        self.intake = Intake(is_form=True)
        self._entry = entry
        self._segment: MultipartSegment | None = None
        self._digest = hashlib.sha256()
        self._size = 0
        self._text: bytearray | None = None

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """One event: a part begins, a piece of it, or its end."""
        if isinstance(event, MultipartSegment):
            self._segment = event
            self._digest, self._size = hashlib.sha256(), 0
            self._text = bytearray() if event.filename is None else None
        elif event is None:
            self._end_part()
        else:
            self._digest.update(event)
            self._size += len(event)
            if self._text is not None:
                self._text += event
                if len(self._text) > _FIELD_LIMIT:
                    raise invalid("A form field is too large.")

    def _end_part(self) -> None:
        segment = self._segment
        if segment is None:
            return
        name = segment.name or ""
        self._entry.parts.append(
            Part(name, segment.filename, segment.content_type, self._size, self._digest.hexdigest())
        )
        if self._text is not None:
            self.intake.fields[name] = self._text.decode("utf-8", "replace")
        elif name in ("image", "image[]"):
            if self._size == 0:
                raise invalid("The image file is empty.")
            self.intake.files += 1
