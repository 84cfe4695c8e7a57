"""What a page knows of the browser it is made for: language, theme, address, and who is signed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from urllib.parse import urlencode

from starlette.requests import HTTPConnection

from gateway.pages.display import Text
from gateway.pages.language import Language, chosen, translations

Theme = Literal["auto", "light", "dark"]
THEMES: tuple[Theme, ...] = get_args(Theme)
LOOK_COOKIE = "pxg_look"  # `zh.dark`: nothing that has to be kept from anybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is signed in, as the page greets them; `role` is `admin`, `viewer` or, on a team's own page, `team`."""

    name: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One page's surroundings. `fragment` says that a script asked for a part of the page it already shows."""

    language: Language
    theme: Theme
    path: str
    query: Mapping[str, str]
    now: datetime
    person: Person | None = None
    fragment: bool = False

    @property
    def text(self) -> Text:
        """gettext in the page's language."""
        return translations(self.language).gettext

    @property
    def address(self) -> str:
        """Path and query, to come back to."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    def with_query(self, **changed: str | None) -> str:
        """This page's address with some of its query changed; None takes a field out."""
        merged = {name: value for name, value in {**self.query, **changed}.items() if value is not None}
        return self.path + (f"?{urlencode(merged)}" if merged else "")


def view_of(
    connection: HTTPConnection, look: str | None, now: datetime, person: Person | None = None
) -> View:
    """The view for a request; `look` is the value of its cookie for language and theme."""
    language, _, theme = (look or "").partition(".")
    return View(
        language=chosen(language, connection.headers.getlist("accept-language")),
        theme=theme_named(theme),
        path=connection.url.path,
        query=dict(connection.query_params),
        now=now,
        person=person,
        fragment=connection.headers.get("hx-request") == "true",
    )


def theme_named(text: str) -> Theme:
    """The theme of this name; what the system prefers for any other text."""
    return next((theme for theme in THEMES if theme == text), "auto")
