"""The files that pages load: styles, one script of our own, and two libraries kept with their checksums.

Each file's address holds its digest, so browsers keep it for a year and never see an old one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.proxy.relay import reply

FOLDER = Path(__file__).parent / "static"
PREFIX = "/gateway/static"
_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is answered."""

    content: bytes
    content_type: bytes
    digest: str


class Assets:
    """All files of the folder, read once; an ASGI endpoint with the path parameters `digest` and `name`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            path.relative_to(folder).as_posix().replace("/", "."): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }

    def link(self, name: str) -> str:
        """The address of a file; KeyError for one there is not."""
        return f"{PREFIX}/{self._files[name].digest}/{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._files.get(scope["path_params"]["name"])
        if found is None or found.digest != scope["path_params"]["digest"]:
            raise errors.not_found()
        headers = [
            (b"content-type", found.content_type),
            (b"cache-control", b"public, max-age=31536000, immutable"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await reply(send, 200, headers, b"" if scope["method"] == "HEAD" else found.content)


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:16])
