"""What may be a secret, and that addresses are shown without their passwords."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.settings import Problem
from gateway.settings.secrets import MASK, check_secret, has_password, is_repetition, mask_address

ROOT = Path(__file__).parents[3]


def accepted(text: str) -> bool:
    try:
        check_secret(SecretStr(text))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f",  # 31 bytes
        "changeme-Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "ChangeMe_please_Nb5vQ2wXe9rTt7yUu1iOo3p",
        "CHANGE-ME-Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "<your-master-key-with-at-least-32-bytes>",
        "secretNb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "Password1-Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "testNb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "sk-1234567890abcdefghijklmnopqrstuvwx",
        "example-Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        '"changeme-in-quotes-Nb5vQ2wXe9rTt7yUu1iOo"',
        "${GATEWAY_SECRETS__MASTER_KEYS_OF_SOMEWHERE}",
        "a" * 32,
        "abcabcabcabcabcabcabcabcabcabcabcabc",
        "AbCaBcabcABCabcabcabcabcabcabcabcabc",
        "3141592 " * 5,
        "01101110011110101010001110101010",
        "12345678901234567890123456789012",
        "…" * 11,
    ],
)
def test_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_secret(SecretStr(text))
    assert len(text) < 2 or text not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4",
        "eine lange Phrase, die niemand errät",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_accepted(text: str) -> None:
    assert accepted(text)


def test_length_is_counted_in_bytes() -> None:
    assert accepted("äöüßéèñçøåæþðÿžš")  # 16 characters, 32 bytes


@pytest.mark.parametrize("make", [secrets.token_hex, secrets.token_urlsafe])
def test_random_secrets_are_accepted(make: Callable[[int], str]) -> None:
    assert all(accepted("z" + make(32)) for _ in range(200))


@examples(deadline=None)
@given(st.text(min_size=1, max_size=16), st.integers(min_value=3, max_value=10))
def test_repetitions_are_seen(pattern: str, times: int) -> None:
    assert is_repetition(pattern * times)
    assert is_repetition((pattern * times)[: -(len(pattern) // 2) or None])


def test_every_bad_entry_and_every_duplicate_is_named(problems_with: Callable[..., list[Problem]]) -> None:
    good = "Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4"
    problems = problems_with(
        {
            "GATEWAY_SECRETS__MASTER_KEYS": f"{good},short,changeme-{good}",
            "GATEWAY_SECRETS__KEY_PEPPER": f"{good},{good}x,{good}",
        }
    )
    assert [problem.setting for problem in problems] == ["secrets.master_keys"] * 2 + ["secrets.key_pepper"]
    assert problems[0].message.startswith("entry 2 has 5 bytes")
    assert problems[1].message.startswith("entry 3 is a well-known example")
    assert problems[2].message.startswith("entries 1 and 3 are the same")
    assert good not in "".join(map(str, problems))


def test_a_list_needs_an_entry(problems_with: Callable[..., list[Problem]]) -> None:
    (problem,) = problems_with({"GATEWAY_SECRETS__MASTER_KEYS": " , "})
    assert "needs at least one" in problem.message


ASSIGNMENT = re.compile(
    r"(?:GATEWAY_(?:SECRETS__MASTER_KEYS|SECRETS__KEY_PEPPER|ADMIN__BOOTSTRAP_TOKEN|METRICS__TOKEN)"
    r"|\b(?:master_keys|key_pepper|bootstrap_token))[\"']?\s*[=:]\s*\[?[\"']?([^\s\"'`\]|]{8,})"
)


def test_no_document_shows_a_secret_that_would_work() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("config/**/*")]
    shown = [
        (path.name, text)
        for path in documents
        if path.is_file()
        for text in ASSIGNMENT.findall(path.read_text(encoding="utf-8"))
        if not text.startswith("$(")
    ]
    assert [(name, text) for name, text in shown if accepted(text)] == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://u:pw@h:5/db", f"postgresql+psycopg://u:{MASK}@h:5/db"),
        ("postgresql+psycopg://u:p/w?x#y@h/db", f"postgresql+psycopg://u:{MASK}@h/db"),
        ("postgresql+psycopg://u:p@w@h/db", f"postgresql+psycopg://u:{MASK}@h/db"),
        (
            "postgresql+psycopg://h/db?user=u&password=pw&x=1",
            f"postgresql+psycopg://h/db?user=u&password={MASK}&x=1",
        ),
        ("postgresql+psycopg://h/db?p%61ssword=pw", f"postgresql+psycopg://h/db?p%61ssword={MASK}"),
        ("redis://:pw@h/0", f"redis://:{MASK}@h/0"),
        ("http://token@proxy:3128", f"http://{MASK}@proxy:3128"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("u:pw@h", MASK),
    ],
)
def test_addresses_are_shown_without_passwords(address: str, shown: str) -> None:
    assert mask_address(address) == shown
    assert has_password(address) is (address != shown)
