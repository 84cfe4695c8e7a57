"""Every sentence of the pages is in every catalogue, with the same values in it, and nothing else is."""

from __future__ import annotations

import re

import pytest

from gateway.pages.language import LANGUAGES, translations
from tests.docs.messages import catalogue, messages

TRANSLATED = [language for language in LANGUAGES if language != "en"]
_PLACE = re.compile(r"%\((\w+)\)s")


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_sentence_is_translated(language: str) -> None:
    known = catalogue(language)
    missing = []
    for message in messages():
        key = message if isinstance(message, str) else message[0]
        found = known.get(key)
        if found is None or not found.string or found.fuzzy:
            missing.append(key)
    assert not missing, (
        f"run: python -m tests.docs.messages, then translate in gateway/pages/locale/{language}.po"
    )


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_catalogue_holds_nothing_that_nobody_says(language: str) -> None:
    said = {message if isinstance(message, str) else message[0] for message in messages()}
    entries = [
        entry.id if isinstance(entry.id, str) else entry.id[0] for entry in catalogue(language) if entry.id
    ]
    assert [entry for entry in entries if entry not in said] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_values_stand_in_translations_as_in_the_source(language: str) -> None:
    for entry in catalogue(language):
        if not entry.id:
            continue
        source = entry.id if isinstance(entry.id, str) else entry.id[-1]
        strings = [entry.string] if isinstance(entry.string, str) else list(entry.string or ())
        for string in strings:
            assert set(_PLACE.findall(string)) == set(_PLACE.findall(source)), source


def test_a_page_in_chinese_is_in_chinese() -> None:
    assert translations("zh").gettext("Teams") == "团队"
    assert translations("en").gettext("Teams") == "Teams"
