from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.teams import LONGEST_SLUG, SLUG, free_slug, looks_like_id, slug_from


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Growth", "growth"),
        ("  Growth & Ünit #2 ", "growth-unit-2"),
        ("東京", "team"),
        ("---", "team"),
        ("01a20317-bcf1-7375-9a5a-cbeea84acd86", "team-01a20317-bcf1-7375-9a5a-cbeea84acd86"),
        ("x" * 100, "x" * 63),
    ],
)
def test_a_name_suggests_a_slug(name: str, slug: str) -> None:
    assert slug_from(name) == slug


@given(st.text(max_size=120))
def test_every_suggestion_is_a_slug(name: str) -> None:
    slug = slug_from(name)
    assert SLUG.fullmatch(slug)
    assert len(slug) <= LONGEST_SLUG
    assert not looks_like_id(slug)


@given(
    st.from_regex(SLUG, fullmatch=True).filter(lambda slug: len(slug) <= LONGEST_SLUG), st.integers(0, 120)
)
def test_a_free_slug_is_free_and_a_slug(slug: str, taken: int) -> None:
    others: set[str] = {slug}
    for _ in range(taken):
        others.add(free_slug(slug, others))
    assert len(others) == taken + 1
    assert all(SLUG.fullmatch(other) and len(other) <= LONGEST_SLUG for other in others)
