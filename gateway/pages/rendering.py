"""From a template and its values to the bytes of a page, with the headers every page has."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.pages import display
from gateway.pages.assets import Assets
from gateway.pages.language import NAMES, Language, translations
from gateway.pages.view import View
from gateway.upstream.headers import Header

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
HTML = b"text/html; charset=utf-8"


class Pages:
    """Renders the templates, one environment a language. What is put into a page is escaped."""

    def __init__(self, assets: Assets) -> None:
        self.assets = assets
        self._environments: dict[Language, Environment] = {}  # made when the first page needs them

    def render(self, template: str, view: View, **values: Any) -> bytes:
        """The page; a template sees `view` and everything in `values`, and fails on a name it does not know."""
        found = self._environments.get(view.language)
        if found is None:
            found = self._environments[view.language] = self._environment(view.language)
        ago = functools.partial(display.ago, now=view.now, text=view.text)
        return found.get_template(template).render(view=view, ago=ago, **values).encode()

    def _environment(self, language: Language) -> Environment:
        # Loaded with the first page: most processes show none, and are ready the sooner.
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        made = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
            auto_reload=False,
        )
        catalogue = translations(language)
        made.install_gettext_callables(  # type: ignore[attr-defined]
            catalogue.gettext, catalogue.ngettext, newstyle=True
        )
        made.filters["credits"] = display.amount
        for name in ("micro", "whole", "count", "percent", "moment", "minute", "milliseconds"):
            made.filters[name] = getattr(display, name)
        made.globals.update(asset=self.assets.link, languages=NAMES, zip=zip)
        return made


def headers(*, images_from: Sequence[str] = (), cache: bytes = b"no-store") -> list[Header]:
    """Headers of a page. Nothing runs or shows but our own files; `images_from` lets pictures of others in."""
    images = " ".join(["'self'", "data:", *images_from])
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    # No `no-referrer`: with it browsers send `Origin: null` with a form, even to the page's own host.
    return [
        (b"content-type", HTML),
        (b"cache-control", cache),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"same-origin"),
        (b"vary", b"cookie, accept-language"),
    ]
