"""The addresses of a team's own pages, and where to go after signing in to them. Pure."""

from __future__ import annotations

import re

FRONT = "/gateway/"
TASKS = "/gateway/team/tasks"
REQUESTS = "/gateway/team/requests"
CONNECT = "/gateway/team/connect"
LOGIN = "/gateway/login"
LOGOUT = "/gateway/logout"
PAGES = frozenset({FRONT, TASKS, REQUESTS, CONNECT})
_QUERY = re.compile(r"[A-Za-z0-9_~.,:=&%+-]*")


def next_page(asked: str | None) -> str:
    """`asked` when it is one of these pages, with its query, else the first: never another site."""
    path, _, query = (asked or "").partition("?")
    if asked is None or len(asked) > 1000 or path not in PAGES or not _QUERY.fullmatch(query):
        return FRONT
    return asked
