"""The upstream keys of a gateway under test, added and turned off by its admin API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.data_plane.rig import (
    Rig,
    digest_of,
    new_account,
    new_secret,
)


@dataclass(frozen=True, slots=True)
class Key:
    """An upstream key of this test alone."""

    id: str
    secret: str
    label: str


@dataclass
class Pool:
    """Every key the gateway may use, made anew for each test."""

    rig: Rig

    def add(self, account: str | None = None, **fields: Any) -> Key:
        account = account or new_account()
        secret = new_secret(account)
        made = self.rig.gateway.upstream_key(secret, account=account, **fields)
        return Key(made["id"], secret, made["label"])

    def turn(self, key: Key, verb: str) -> None:
        self.rig.gateway.call("POST", f"/upstream-keys/{key.id}/{verb}")

    def remove(self, key: Key) -> None:
        self.rig.gateway.call("DELETE", f"/upstream-keys/{key.id}")

    def counts(self, *keys: Key, what: str = "requests") -> list[int]:
        """How many paid calls each key was used for, or by name its `reads` or `executions`."""
        if what != "requests":
            return [self.rig.sandbox.counters(key.secret)[what] for key in keys]
        used = [one["key_sha256"] for one in self.rig.sandbox.journal() if one["method"] == "POST"]
        return [used.count(digest_of(key.secret)) for key in keys]
