"""Results under /files: drawn from their own name when somebody asks, so nothing has to be kept."""

import re
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.images import draw_png
from gateway.sandbox.video import draw_mp4

_NAME = re.compile(r"([0-9a-f]{16})-([0-9]{1,3})x([0-9]{1,3})(?:-([0-9]{1,2}))?\.(png|mp4)")
_LONGEST_SIDE = 256
_HEADERS = {"Cache-Control": "public, max-age=86400"}


async def read_file(request: Request) -> Response:
    """`GET /files/{name}`: the image or clip behind a URL of an answer; needs no key. 404 for other names."""
    name = request.path_params["name"]
    match = _NAME.fullmatch(name)
    if match is None or not _drawable(match):
        raise SandboxError(404, "File not found.")
    kind = "image/png" if match[5] == "png" else "video/mp4"
    return Response(draw(name), 200, _HEADERS, media_type=kind)


@lru_cache(maxsize=64)
def draw(name: str) -> bytes:
    """The bytes of a result by its name, `<seed>-<width>x<height>[-<seconds>].<png|mp4>`. Raises ValueError."""
    match = _NAME.fullmatch(name)
    if match is None or not _drawable(match):
        raise ValueError(f"not the name of a result: {name}")
    seed, width, height = int(match[1], 16), int(match[2]), int(match[3])
    if match[5] == "png":
        return draw_png(seed, width, height)
    return draw_mp4(seed, width, height, int(match[4]))


def _drawable(match: re.Match[str]) -> bool:
    has_seconds = match[4] is not None and int(match[4]) > 0
    if has_seconds != (match[5] == "mp4"):
        return False
    return all(8 <= int(side) <= _LONGEST_SIDE for side in (match[2], match[3]))
