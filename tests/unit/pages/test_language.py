"""Which language a browser gets."""

from __future__ import annotations

import pytest

from gateway.pages.language import chosen


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, [], "en"),
        (None, ["zh-CN,zh;q=0.9,en;q=0.8"], "zh"),
        (None, ["de-DE,de;q=0.9,en;q=0.5,zh;q=0.4"], "en"),
        (None, ["fr", "zh;q=0.1"], "zh"),
        (None, ["zh;q=0"], "en"),
        (None, [";;q=,,\x00"], "en"),
        ("en", ["zh"], "en"),
        ("zh", ["en"], "zh"),
        ("klingon", ["zh"], "zh"),
    ],
)
def test_the_choice(cookie: str | None, accepted: list[str], language: str) -> None:
    assert chosen(cookie, accepted) == language
