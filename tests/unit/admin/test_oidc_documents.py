"""A provider's documents: only good ones are kept, all who wait share a read, and a failure is remembered a while."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from gateway.admin.oidc_documents import (
    FAILED_SECONDS,
    KEPT_SECONDS,
    Documents,
    checked_discovery,
    checked_keys,
)
from gateway.admin.oidc_terms import ProviderError

ISSUER = "https://id.example.com"
GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/a",
    "token_endpoint": f"{ISSUER}/t",
    "jwks_uri": f"{ISSUER}/j",
}


class Place:
    """A provider that says what it is told, once it is let, and a clock."""

    def __init__(self) -> None:
        self.at, self.asked = 1000.0, 0
        self.answer: dict[str, Any] | None = GOOD
        self.open = asyncio.Event()
        self.open.set()
        self.documents = Documents(self.read, self)

    async def read(self, url: str) -> dict[str, Any]:
        self.asked += 1
        await self.open.wait()
        if self.answer is None:
            raise ProviderError("down")
        return self.answer

    async def get(self, *, again: bool = False) -> dict[str, Any]:
        return await self.documents.get("x", partial(checked_discovery, ISSUER), again=again)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


async def test_what_is_not_the_provider_s_is_not_kept() -> None:
    place = Place()
    place.answer = {"status": "starting"}
    with pytest.raises(ProviderError, match="not that of"):
        await place.get()
    place.answer = GOOD
    place.at += FAILED_SECONDS
    assert await place.get() == GOOD
    assert await place.get() == GOOD
    assert place.asked == 2


async def test_all_who_wait_share_one_read_and_its_failure_is_remembered() -> None:
    place = Place()
    place.answer = None
    place.open.clear()
    waiting = [asyncio.create_task(place.get()) for _ in range(6)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    place.open.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[ProviderError] * 5]
    assert place.asked == 1
    place.at += FAILED_SECONDS - 1
    with pytest.raises(ProviderError, match="down"):
        await place.get()
    assert place.asked == 1
    place.at += 1
    place.answer = GOOD
    assert await place.get() == GOOD


async def test_an_old_one_is_served_while_it_is_read_anew_and_while_that_fails() -> None:
    place = Place()
    await place.get()
    place.at += KEPT_SECONDS
    place.open.clear()
    place.answer = None
    for _ in range(3):
        assert await place.get() == GOOD, "nobody waits"
        await asyncio.sleep(0)
    assert place.asked == 2
    place.open.set()
    await asyncio.sleep(0.01)
    assert await place.get() == GOOD
    place.at += FAILED_SECONDS
    place.answer = {**GOOD, "token_endpoint": f"{ISSUER}/new"}
    assert await place.get() == GOOD
    await asyncio.sleep(0.01)
    assert (await place.get())["token_endpoint"] == f"{ISSUER}/new"
    assert place.asked == 3


async def test_asked_again_what_is_kept_will_not_do() -> None:
    place = Place()
    await place.get()
    await place.get(again=True)
    assert place.asked == 2
    place.answer = {"issuer": "another"}
    for _ in range(2):
        with pytest.raises(ProviderError):
            await place.get(again=True)
    assert place.asked == 3
    assert await place.get() == GOOD, "the good one is still kept"


@pytest.mark.parametrize(
    "change", [{"token_endpoint": "http://id.example.com/t"}, {"jwks_uri": "https://[x"}]
)
def test_addresses_of_a_document_are_checked(change: dict[str, str]) -> None:
    with pytest.raises(ProviderError, match="no usable"):
        checked_discovery(ISSUER, {**GOOD, **change})


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": []}, {"keys": ["x"]}])
def test_a_list_without_keys_is_none(keys: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="no keys"):
        checked_keys(keys)
