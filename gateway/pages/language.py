"""The languages of the pages: which one a browser gets, and their catalogues, read as they are kept in the source."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: dict[Language, str] = {"en": "English", "zh": "中文"}
CATALOGUES = Path(__file__).parent / "locale"
_RANGE = re.compile(r"\s*([A-Za-z]{1,8})[A-Za-z0-9-]*\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*")


def N_(text: str) -> str:  # noqa: N802 - gettext's own name
    """Marks a sentence for the catalogues where it is written; it is translated where it is shown."""
    return text


def chosen(cookie: str | None, accepted: Iterable[str]) -> Language:
    """What was chosen before, else what the browser asks for, else English."""
    for language in LANGUAGES:
        if cookie == language:
            return language
    asked: list[tuple[float, Language]] = []
    for part in ",".join(accepted).split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            continue
        weight = float(found[2] or 1)
        asked += [(weight, known) for known in LANGUAGES if known == found[1].lower() and weight > 0]
    return max(asked, key=lambda one: one[0])[1] if asked else "en"


@cache
def translations(language: Language) -> NullTranslations:
    """The catalogue of a language; English is what the source says."""
    if language == "en":
        return NullTranslations()
    # Loaded with the first page that needs it, since few do: it takes a while, and a megabyte.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    with (CATALOGUES / f"{language}.po").open("rb") as source:
        write_mo(compiled, read_po(source, locale=language))
    compiled.seek(0)
    return GNUTranslations(compiled)
