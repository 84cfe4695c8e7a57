"""Pixapi, asked for its free model list with every key: reachable, which keys work, its clock, and which models have a
price. Secrets go to Pixapi alone: nothing here prints one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

from gateway.catalog.model_list import read_list
from gateway.catalog.price_book import PriceBook
from gateway.cli.doctor.check import Check, fail, ok, warn, worst
from gateway.composition import upstream_client
from gateway.db.engine import Database
from gateway.db.paging import PageOf
from gateway.ids import uuid7
from gateway.pool import sealing, upstream_keys
from gateway.pool.dispatch import Listed, list_models
from gateway.pool.health import Look
from gateway.pool.upstream_keys import UpstreamKey
from gateway.pool.vault import Vault
from gateway.settings import Settings
from gateway.settings.secrets import mask_address
from gateway.spool import SpoolBudget
from gateway.upstream.outcomes import Verdict

KEYS_AT_A_TIME = 8
MOST_KEYS = 200
SHOWN_MODELS = 5
SKEW_SECONDS = 2.0
NOBODY = "pixapi-gateway-doctor"  # asks whether Pixapi answers at all, where there is no key


@dataclass(frozen=True, slots=True)
class Tried:
    """What one key was answered: `listed` None when it was not asked; `models` None when that was no model list.

    `asked_at` is the middle of the call, `seconds` how long it took.
    """

    key: UpstreamKey | None
    opened: bool = True
    listed: Listed | None = None
    models: frozenset[str] | None = None
    asked_at: datetime | None = None
    seconds: float = 0.0


def reachable(tried: Sequence[Tried], settings: Settings) -> list[Check]:
    """Whether Pixapi answers; nothing when nobody was asked."""
    asked = [one for one in tried if one.listed is not None]
    if not asked:
        return []
    answered = [one for one in asked if one.listed and one.listed.outcome.status is not None]
    base = settings.upstream.base_url
    if answered:
        fastest = min(one.seconds for one in answered)
        return [ok("Pixapi", f"{base} answers in {fastest * 1000:.0f} ms")]
    proxy = settings.upstream.proxy
    by = f"upstream.proxy ({mask_address(proxy)})" if proxy else "HTTPS_PROXY, NO_PROXY"
    advice = f"check upstream.base_url, the name service, the firewall, upstream.ca_file and {by}"
    return [fail("Pixapi", f"{base}: {_why(asked[0])}", advice)]


def key(tried: Tried) -> Check:
    """What is to be said of one key, by the database and by Pixapi."""
    assert tried.key is not None  # noqa: S101 - tells the type checker
    stored = tried.key
    name = f"upstream key {stored.label}"
    about = f"account {stored.account}, {stored.state}"
    remove = f"add another key, then: pixapi-gateway upstream-keys remove {stored.label}"
    enable = f"pixapi-gateway upstream-keys enable {stored.label}"
    if not tried.opened:
        advice = f"put the master key it was stored under into secrets.master_keys, or {remove}"
        return fail(name, f"{about}: no entry of secrets.master_keys opens it", advice)
    if stored.state == "disabled":
        return warn(
            name,
            f"{about} ({stored.state_reason or 'no reason given'}): not asked",
            f"to use it again: {enable}",
        )
    if tried.listed is None:
        return _unasked(name, about, stored)
    outcome, look = tried.listed.outcome, tried.listed.look
    if look is Look.REFUSED:
        return fail(
            name, f"{about}: Pixapi refuses it ({outcome.status})", f"make a new key at Pixapi and {remove}"
        )
    if outcome.verdict is Verdict.KEY_EXHAUSTED:
        return fail(
            name, f"{about}: its account is out of credits", f"top the account {stored.account} up at Pixapi"
        )
    if outcome.verdict is Verdict.THROTTLED:
        return warn(
            name, f"{about}: Pixapi asks it to slow down (429)", "wait a minute; add keys if it stays"
        )
    if look is Look.UNDECIDED:
        found = f"{about}: {_why(tried)}" if tried.models is None else f"{about}: an odd answer"
        return warn(name, found, "ask again later; see the check 'Pixapi'")
    count = len(tried.models or ())
    found = f"{about}: accepted, {count} models"
    if stored.state == "refused":
        return warn(
            name,
            f"{found}, but off since Pixapi refused it",
            f"it returns within 5 min, or at once: {enable}",
        )
    if stored.rest_reason is not None:
        return warn(name, f"{found}, {_rest(stored)}", f"it returns by itself, or at once: {enable}")
    if count == 0:
        return warn(name, found, "ask Pixapi which models this account may use")
    return ok(name, found)


def keys(tried: Sequence[Tried]) -> list[Check]:
    """Every key, and whether there is one to pay with."""
    stored = [one for one in tried if one.key is not None]
    checks = [key(one) for one in stored]
    if not any(one.key and one.key.state == "active" for one in stored):
        found = "there is no active upstream key" if stored else "there is no upstream key"
        advice = "add one: pixapi-gateway upstream-keys add --label main < key.txt"
        checks.insert(0, fail("upstream keys", found, advice))
    return checks


def clocks(
    local: datetime, database: tuple[datetime, datetime] | None, tried: Sequence[Tried]
) -> list[Check]:
    """How far this machine's clock is from the others': `database` is (its time, ours at that moment)."""
    wrong, seen = [], []
    if database is not None:
        seen.append(("Postgres", (database[1] - database[0]).total_seconds()))
    # The answer that took least is the best witness.
    skews = [(one.seconds, skew) for one in tried if (skew := _skew(one)) is not None]
    seen += [("Pixapi", min(skews)[1])] if skews else []
    for who, skew in seen:
        if abs(skew) > SKEW_SECONDS:
            side = "ahead of" if skew > 0 else "behind"
            text = f"this machine's clock is {abs(skew):.1f} s {side} {who}'s ({local:%H:%M:%S}Z here)"
            wrong.append(warn("clock", text, "let chrony, systemd-timesyncd or ntpd set the clocks of both"))
    agreed = " and ".join(who for who, _ in seen)
    return worst(
        wrong, ok("clock", f"agrees with {agreed}" if seen else "there was nobody to compare it with")
    )


def prices(book: PriceBook, tried: Sequence[Tried], *, refuse: bool) -> list[Check]:
    """Models without a price, and prices without a model; the latter only where a list was read."""
    name, count = "price book", len(book.models)
    listed = {model for one in tried for model in one.models or ()}
    if not any(one.models is not None for one in tried):
        return [ok(name, f"{count} models have a price")]
    wrong = []
    without = sorted(model for model in listed if book.model(model) is None)
    if without:
        what = "calls for them are refused" if refuse else "calls for them are held at credits.default_hold"
        wrong.append(warn(name, f"without a price: {_some(without)}; {what}", "add them to models.toml"))
    gone = sorted(model for model in book.models if model not in listed)
    if gone:
        text = f"priced, and no account of the pool lists them: {_some(gone)}"
        wrong.append(warn(name, text, "take them out of models.toml, or add a key whose account has them"))
    return worst(wrong, ok(name, f"{count} models have a price, and Pixapi lists each of them"))


async def look(settings: Settings, database: Database | None, vault: Vault, *, offline: bool) -> list[Tried]:
    """Reads the keys, and asks Pixapi with each that may be used; with nobody's where there is none.

    Raises GatewayError when the database does not answer.
    """
    stored = [] if database is None else await _stored(database, vault)
    asked = [(key, secret) for key, secret in stored if secret is not None and key.state != "disabled"]
    if offline:
        return [Tried(key, secret is not None) for key, secret in stored]
    budget = SpoolBudget(settings.server.spool_max_bytes, settings.server.spool_dir)
    client = upstream_client(settings, budget)
    await client.open()
    gate = asyncio.Semaphore(KEYS_AT_A_TIME)

    async def ask(key: UpstreamKey | None, secret: str) -> Tried:
        async with gate:
            started, at = time.perf_counter(), datetime.now(UTC)
            listed = await list_models(client, secret, f"req_{uuid7().hex}", settings.upstream.read_timeout)
        spent = time.perf_counter() - started
        models = read_list(listed.body) if listed.body else None
        middle = at + (datetime.now(UTC) - at) / 2
        return Tried(key, True, listed, None if models is None else frozenset(models), middle, spent)

    try:
        everyone: list[tuple[UpstreamKey | None, str]] = [*asked] or [(None, NOBODY)]
        answers = await asyncio.gather(*[ask(key, secret) for key, secret in everyone])
    finally:
        await client.close()
    by_key = {one.key.id: one for one in answers if one.key is not None}
    rest = [one for one in answers if one.key is None]
    return [by_key.get(key.id, Tried(key, secret is not None)) for key, secret in stored] + rest


async def _stored(database: Database, vault: Vault) -> list[tuple[UpstreamKey, str | None]]:
    async with database.autocommit() as connection:
        page = await upstream_keys.page(connection, PageOf(MOST_KEYS))
        secrets: Mapping[UUID, str | None] = await sealing.opened(connection, vault)
    return [(key, secrets.get(key.id)) for key in page.items]


def _unasked(name: str, about: str, stored: UpstreamKey) -> Check:
    if stored.state == "refused" or stored.rest_reason is not None:
        advice = f"ask Pixapi, without --offline; to use it at once: pixapi-gateway upstream-keys enable {stored.label}"
        return warn(name, f"{about}, {_rest(stored)}", advice)
    return ok(name, f"{about}: not asked")


def _rest(stored: UpstreamKey) -> str:
    until = max(filter(None, (stored.paid_rests_until, stored.reads_rest_until)), default=None)
    when = "" if until is None else f" until {until:%H:%M:%SZ}"
    return f"resting{when} ({stored.rest_reason or stored.state_reason or 'no reason given'})"


def _why(tried: Tried) -> str:
    """What kept Pixapi's answer away, without what it means for a caller."""
    assert tried.listed is not None  # noqa: S101 - tells the type checker
    outcome = tried.listed.outcome
    if outcome.error is None:
        return f"status {outcome.status}, and no model list in Pixapi's shape"
    return outcome.error.message.partition(";")[0]


def _skew(tried: Tried) -> float | None:
    """Seconds this machine's clock is ahead of Pixapi's; None when its answer had no date. A Date is cut to seconds."""
    if tried.listed is None or tried.asked_at is None or tried.listed.outcome.date is None:
        return None
    try:
        date = parsedate_to_datetime(tried.listed.outcome.date)
    except ValueError:
        return None
    if date.tzinfo is None:
        return None
    return (tried.asked_at - date).total_seconds() - 0.5


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_MODELS
    return ", ".join(names[:SHOWN_MODELS]) + (f" and {more} more" if more > 0 else "")
