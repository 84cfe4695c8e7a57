"""The code to copy, as text; tests/e2e/clients/test_snippets.py runs it."""

from __future__ import annotations

import pytest

from gateway.pages.snippets import LANGUAGES, NAMES, Language, named, snippets


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_environment_holds_address_and_key(language: Language) -> None:
    found = snippets(language, "https://gateway.example", "pxg_abc")
    assert found.environment == (
        'export OPENAI_BASE_URL="https://gateway.example/v1"\nexport OPENAI_API_KEY="pxg_abc"'
    )
    for code in (found.image, found.task):
        assert "gateway.example" not in code
        assert "pxg_" not in code
        assert "gemini-3-pro-image-preview" in code
    assert "wait=30" in found.task


def test_a_language_by_its_name() -> None:
    assert [named(one) for one in (*LANGUAGES, "cobol", None)] == [*LANGUAGES, "curl", "curl"]
    assert set(NAMES) == set(LANGUAGES)
