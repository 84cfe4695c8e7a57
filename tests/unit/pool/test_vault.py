"""Upstream secrets at rest: bound to their row, opened by any master key, found again without being kept."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pool.vault import Vault, VaultError

FIRST, SECOND = "first-master-key-of-the-tests-0123456789", "second-master-key-of-the-tests-0123456789"
VAULT = Vault([FIRST])


@settings(max_examples=50)
@given(st.uuids(), st.text(min_size=1, max_size=512))
def test_what_was_sealed_is_opened(row: UUID, secret: str) -> None:
    assert VAULT.open(row, VAULT.seal(row, secret)) == secret


def test_a_sealed_secret_holds_nothing_readable_and_is_new_each_time() -> None:
    row, secret = uuid4(), "sk_abcdefghijklmnop"
    sealed = VAULT.seal(row, secret)
    assert secret.encode() not in sealed
    assert row.bytes not in sealed
    assert VAULT.seal(row, secret) != sealed


def test_a_secret_copied_to_another_row_does_not_open() -> None:
    mine, other = uuid4(), uuid4()
    sealed = VAULT.seal(mine, "sk_abcdefghijklmnop")
    with pytest.raises(VaultError, match="another row") as caught:
        VAULT.open(other, sealed)
    assert "sk_" not in str(caught.value)


def test_the_first_master_key_seals_and_all_open() -> None:
    row = uuid4()
    old = VAULT.seal(row, "sk_abcdefghijklmnop")
    rotated = Vault([SECOND, FIRST])
    assert rotated.open(row, old) == "sk_abcdefghijklmnop"
    new = rotated.seal(row, "sk_abcdefghijklmnop")
    assert Vault([SECOND]).open(row, new) == "sk_abcdefghijklmnop"
    with pytest.raises(VaultError, match=f"no master key opens upstream key {row}"):
        VAULT.open(row, new)


def test_which_master_key_opens_a_secret_is_known() -> None:
    row = uuid4()
    old = VAULT.seal(row, "sk_abcdefghijklmnop")
    both = Vault([SECOND, FIRST])
    assert both.position(row, old) == 1
    assert both.position(row, both.seal(row, "sk_abcdefghijklmnop")) == 0
    with pytest.raises(VaultError):
        Vault([SECOND]).position(row, old)
    with pytest.raises(VaultError, match="another row"):
        both.position(uuid4(), old)
    assert both.names == Vault([SECOND]).names + VAULT.names
    assert all(len(name) == 8 and name not in FIRST + SECOND for name in both.names)


@pytest.mark.parametrize("damage", [b"", b"gAAAA", b"\xff" * 100])
def test_damaged_secrets_do_not_open(damage: bytes) -> None:
    with pytest.raises(VaultError):
        VAULT.open(uuid4(), damage)


def test_one_changed_byte_does_not_open() -> None:
    row = uuid4()
    sealed = bytearray(VAULT.seal(row, "sk_abcdefghijklmnop"))
    sealed[40] ^= 1
    with pytest.raises(VaultError):
        VAULT.open(row, bytes(sealed))


def test_a_fingerprint_finds_the_same_secret_again_also_with_a_new_master_key_before() -> None:
    assert VAULT.fingerprint("sk_1") == Vault([FIRST]).fingerprint("sk_1")
    assert VAULT.fingerprint("sk_1") in Vault([SECOND, FIRST]).fingerprints("sk_1")
    assert Vault([SECOND, FIRST]).fingerprint("sk_1") == Vault([SECOND]).fingerprint("sk_1")
    assert len(VAULT.fingerprint("sk_1")) == 32
    assert VAULT.fingerprint("sk_1") != VAULT.fingerprint("sk_2")
    assert VAULT.fingerprint("sk_1") != Vault([SECOND]).fingerprint("sk_1")
