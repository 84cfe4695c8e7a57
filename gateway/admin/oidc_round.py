"""What a browser carries while its user is at the provider: signed, short-lived, and good for one answer. Pure.

It is kept by the browser and not by us, so that asking for a sign-in, which anybody can, stores nothing.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import dataclass

from gateway.access.key_format import Peppers
from gateway.admin.next_page import next_page
from gateway.admin.oidc_terms import Secrets

LIVES = 600  # seconds


@dataclass(frozen=True, slots=True)
class Round:
    """One way to the provider and back; `expires` in seconds of the wall clock."""

    secrets: Secrets
    next_path: str
    expires: float


def begin(next_path: str, now: float) -> Round:
    made = Secrets(*(secrets.token_urlsafe(32) for _ in range(3)))
    return Round(made, next_path, now + LIVES)


def pack(one: Round, peppers: Peppers) -> str:
    """The cookie's value."""
    kept = one.secrets
    content = json.dumps([kept.state, kept.nonce, kept.verifier, one.next_path, one.expires])
    text = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
    return f"{text}.{peppers.sign(_named(text)).hex()}"


def unpack(value: str, peppers: Peppers, now: float) -> Round | None:
    """The round of a cookie that we made and that has not expired."""
    text, _, signature = value.partition(".")
    if not any(
        hmac.compare_digest(one.hex().encode(), signature.encode()) for one in peppers.digests(_named(text))
    ):
        return None
    state, nonce, verifier, next_path, expires = json.loads(
        base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    )
    return Round(Secrets(state, nonce, verifier), next_page(next_path), expires) if now < expires else None


def _named(text: str) -> str:
    """Apart from everything else the peppers sign."""
    return f"sign-in round {text}"
