"""Connect: code to copy, with this gateway's address."""

from __future__ import annotations

from gateway.admin.pages.page import Html, PageCall
from gateway.pages import snippets


async def show(call: PageCall) -> Html:
    language = snippets.named(call.query.get("lang"))
    values = {
        "language": language,
        "names": snippets.NAMES,
        "needs": snippets.NEEDS.get(language),
        "code": snippets.snippets(language, call.origin),
        "origin": call.origin,
    }
    return Html(template="connect.html", values=values)
