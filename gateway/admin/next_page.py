"""Where to go after signing in. Pure."""

from __future__ import annotations

import re

FRONT = "/admin/"
_LOCAL = re.compile(r"/admin/(?:[A-Za-z0-9_~.:-]+/)*[A-Za-z0-9_~.:-]*(?:\?[A-Za-z0-9_~.,:=&%/+-]*)?")
_SIGN_IN = re.compile(r"/admin/(?:login|logout|oidc)(?:[/?]|$)")


def next_page(asked: str | None) -> str:
    """`asked` when it is a page of ours below /admin/, else the front page: never another site."""
    if asked is None or len(asked) > 1000 or not _LOCAL.fullmatch(asked) or _SIGN_IN.match(asked):
        return FRONT
    return FRONT if {".", ".."} & set(asked.partition("?")[0].split("/")) else asked
