"""How often one may try: counted in Postgres, over processes, each address by itself."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import httpx
import pytest

from gateway.access import sign_in_attempts
from gateway.access.key_format import ADMIN_TOKEN, make
from gateway.access.sign_in_attempts import AUDIT, FAILURES, counted_as
from gateway.db.engine import Database
from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites


async def tried(site: Site, address: str, token: str | None = None) -> int:
    """The answer to a sign-in with this token, or with one that nobody was given."""
    return (await answered(site, address, token)).status_code


async def answered(site: Site, address: str, token: str | None = None) -> httpx.Response:
    data = {"token": token or make(ADMIN_TOKEN).text}
    return await site.browser(address).post("/admin/login", data=data)


async def later(site: Site, minutes: int) -> None:
    await site.sql(f"UPDATE sign_in_attempts SET began_at = began_at - interval '{minutes} minutes'")


@pytest.fixture(autouse=True)
async def forgotten(site: Site) -> None:
    await site.sql("DELETE FROM sign_in_attempts")


async def test_ten_failures_and_no_more_over_two_processes(sites: Sites) -> None:
    here, there = sites(), sites()
    both = [here, there]
    assert [await tried(both[n % 2], "198.51.100.1") for n in range(FAILURES)] == [401] * FAILURES
    for site in both:
        answer = await answered(site, "198.51.100.1")
        assert answer.status_code == 429
        assert 890 <= int(answer.headers["retry-after"]) <= 900
        assert 'name="token"' in answer.text
        assert "Too many failed sign-ins" in answer.text
    assert (here.count("refused"), there.count("limited")) == (5, 1)


async def test_others_are_not_held_up(site: Site) -> None:
    for _ in range(FAILURES + 2):
        await tried(site, "198.51.100.2")
    assert await tried(site, "198.51.100.3", BOOTSTRAP) == 303


async def test_many_at_once_are_no_more_than_the_limit(sites: Sites) -> None:
    both = [sites(), sites()]
    statuses = await asyncio.gather(*(tried(both[n % 2], "198.51.100.4") for n in range(40)))
    assert sorted(statuses) == [401] * FAILURES + [429] * 30


async def test_the_count_begins_anew_after_a_quarter_of_an_hour(site: Site) -> None:
    for _ in range(FAILURES + 1):
        await tried(site, "198.51.100.5")
    await later(site, 14)
    assert await tried(site, "198.51.100.5") == 429
    await later(site, 2)
    assert await tried(site, "198.51.100.5") == 401
    assert await tried(site, "198.51.100.5", BOOTSTRAP) == 303


async def test_a_good_token_signs_in_however_often_its_address_has_failed(site: Site) -> None:
    token = (await site.token("viewer")).secret
    assert [await tried(site, "198.51.100.7") for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]
    assert await tried(site, "198.51.100.7", token) == 303
    assert await tried(site, "198.51.100.7", BOOTSTRAP) == 303
    assert await tried(site, "198.51.100.7") == 429


async def test_what_cannot_be_a_token_is_neither_counted_nor_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = make(ADMIN_TOKEN).text
    wrong = ["", "pxa_wrong", "pxa_é", good[:-1], good[:-1] + ("0" if good[-1] != "0" else "1"), "x" * 500]
    with monkeypatch.context() as patched:
        patched.setattr(Database, "autocommit", None)
        patched.setattr(Database, "transaction", None)
        for token in wrong * 3:
            answer = await site.browser("198.51.100.8").post("/admin/login", data={"token": token})
            assert answer.status_code == 401
    assert (await site.sql("SELECT 1 FROM sign_in_attempts")).first() is None


async def test_good_sign_ins_neither_count_nor_forgive(site: Site) -> None:
    for _ in range(FAILURES - 1):
        await tried(site, "198.51.100.6")
        assert await tried(site, "198.51.100.6", BOOTSTRAP) == 303
    assert await tried(site, "198.51.100.6") == 401
    assert await tried(site, "198.51.100.6") == 429


async def test_a_proxy_s_word_counts_only_when_it_is_trusted(sites: Sites) -> None:
    plain, behind = sites(), sites(server__trusted_proxies="198.51.100.0/24")
    forged = {"x-forwarded-for": "192.0.2.200"}
    for n in range(FAILURES):
        browser = plain.browser("198.51.100.9", **{"x-forwarded-for": f"192.0.2.{n}"})
        assert (await browser.post("/admin/login", data={"token": make(ADMIN_TOKEN).text})).status_code == 401
    wrong = {"token": make(ADMIN_TOKEN).text}
    limited = await plain.browser("198.51.100.9", **forged).post("/admin/login", data=wrong)
    assert limited.status_code == 429, "the header is ignored"
    other = await behind.browser("198.51.100.9", **forged).post("/admin/login", data=wrong)
    assert other.status_code == 401, "behind the proxy it is another client"


async def test_the_audit_has_the_first_and_the_last_failure(site: Site) -> None:
    for _ in range(FAILURES + 3):
        await tried(site, "198.51.100.10")
    found = await site.sql(
        "SELECT actor, detail FROM audit_entries WHERE action = 'sign-in.refuse' AND subject_id = '198.51.100.10'"
        " ORDER BY id"
    )
    assert [(row.actor, row.detail["failures"]) for row in found] == [
        ("anonymous", 1),
        ("anonymous", FAILURES),
    ]


async def test_the_audit_has_no_more_failures_than_its_share_of_a_window(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in_attempts, "AUDITED", 4)

    async def audited() -> int:
        found = await site.sql("SELECT count(*) FROM audit_entries WHERE actor = 'anonymous'")
        number: int = found.scalar_one()
        return number

    before, refused = await audited(), site.count("refused")
    for n in range(9):
        assert await tried(site, f"2001:db8:0:{n}::1") == 401
    assert await audited() == before + 4
    assert site.count("refused") == refused + 9
    await later(site, 16)
    await tried(site, "2001:db8:1::1")
    assert await audited() == before + 5


async def test_old_counts_are_deleted(site: Site) -> None:
    await tried(site, "198.51.100.11")
    await later(site, 16)
    await tried(site, "198.51.100.12")
    await site.runtime.sign_in_attempts.clear()
    left = (await site.sql("SELECT address FROM sign_in_attempts")).scalars().all()
    assert set(left) == {"198.51.100.12", AUDIT}


def test_a_network_of_ipv6_is_one_client() -> None:
    assert counted_as(ip_address("2001:db8:1:2:3:4:5:6")) == counted_as(ip_address("2001:db8:1:2::1"))
    assert counted_as(ip_address("2001:db8:1:2::1")) == "2001:db8:1:2::/64"
    assert counted_as(ip_address("2001:db8:1:3::1")) != "2001:db8:1:2::/64"
    assert counted_as(ip_address("192.0.2.7")) == "192.0.2.7"
    assert counted_as(None) == "unknown"
