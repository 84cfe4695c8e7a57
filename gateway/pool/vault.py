"""Upstream keys at rest: encrypted under the master keys, each bound to its own row.

A token copied to another row does not decrypt there, because the row's id is part of what was encrypted. The
first master key encrypts; all decrypt, so a master key is rotated by putting the new one first and sealing anew what
lies under the others (`sealing.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class VaultError(Exception):
    """A stored secret that no configured master key opens, or that belongs to another row."""


class Vault:
    """Seals and opens upstream secrets with keys derived from the master keys (any text of ≥ 32 bytes) by HKDF."""

    def __init__(self, master_keys: Sequence[str]) -> None:
        self._fernets = [Fernet(_derive(key, b"upstream-keys")) for key in master_keys]
        self._fernet = MultiFernet(self._fernets)
        self._fingers = [
            base64.urlsafe_b64decode(_derive(key, b"upstream-key-fingerprints")) for key in master_keys
        ]
        self.names = tuple(_derive(key, b"master-key-names")[:8].decode() for key in master_keys)
        """What each master key is called in audit entries, the first one's first: eight characters that tell
        nothing of it."""

    def seal(self, row: UUID, secret: str) -> bytes:
        """The encrypted secret for the row with this id."""
        return self._fernet.encrypt(row.bytes + secret.encode())

    def open(self, row: UUID, sealed: bytes) -> str:
        """The secret; raises VaultError when no master key fits or the token was made for another row."""
        try:
            plain = self._fernet.decrypt(sealed)
        except InvalidToken:
            raise VaultError(f"no master key opens upstream key {row}") from None
        if plain[:16] != row.bytes:
            raise VaultError(f"the secret stored for upstream key {row} was made for another row")
        return plain[16:].decode()

    def position(self, row: UUID, sealed: bytes) -> int:
        """Which master key opens it, 0 for the first; raises VaultError as `open` does."""
        self.open(row, sealed)
        return next(place for place, fernet in enumerate(self._fernets) if _opens(fernet, sealed))

    def fingerprint(self, secret: str) -> bytes:
        """A keyed digest by which the same secret is found twice without keeping it, made with the first key."""
        return self.fingerprints(secret)[0]

    def fingerprints(self, secret: str) -> list[bytes]:
        """Every digest this secret may be stored with, the first master key's first."""
        return [_digest(finger, secret) for finger in self._fingers]


def _opens(fernet: Fernet, sealed: bytes) -> bool:
    try:
        fernet.decrypt(sealed)
    except InvalidToken:
        return False
    return True


def _digest(finger: bytes, secret: str) -> bytes:
    mac = hmac.HMAC(finger, hashes.SHA256())
    mac.update(secret.encode())
    return mac.finalize()


def _derive(master_key: str, purpose: bytes) -> bytes:
    hkdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"pixapi-gateway/" + purpose)
    return base64.urlsafe_b64encode(hkdf.derive(master_key.encode()))
