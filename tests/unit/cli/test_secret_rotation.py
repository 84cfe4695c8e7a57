"""What may be taken away, and what keeps the rest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.access.signatures import Signed
from gateway.cli.secret_rotation import advice
from gateway.pool.sealing import Sealing

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ONE, TWO = ("first",), ("first", "second")


@pytest.mark.parametrize(
    ("sealed", "signed", "lists", "said"),
    [
        (Sealing([3]), [Signed("team_keys", "first", 2, NOW)], ONE, []),
        (Sealing([3, 0]), [], TWO, ["master_keys (second) opens nothing", "key_pepper (second) has signed nothing"]),
        (Sealing([2, 1]), [], TWO, ["needed for 1: run 'pixapi-gateway secrets rotate'", "has signed nothing"]),
        (Sealing([2, 0], [("upstream-key", "main")]), [], TWO, ["No master key opens main", "has signed nothing"]),
        (
            Sealing([3, 0]),
            [Signed("team_keys", "second", 2, NOW), Signed("admin_tokens", None, 1, None)],
            TWO,
            ["opens nothing", "needed for up to 3 keys"],
        ),
        (Sealing([3]), [Signed("team_keys", "gone", 4, NOW)], ONE, ["4 keys and tokens were signed with a pepper"]),
    ],
)  # fmt: skip
def test_advice(sealed: Sealing, signed: list[Signed], lists: tuple[str, ...], said: list[str]) -> None:
    found = advice(sealed, signed, lists, lists)
    assert len(found) == len(said)
    for sentence, words in zip(found, said, strict=True):
        assert words in sentence
