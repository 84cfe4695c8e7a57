"""How often one may try: counted in Postgres, over processes, each address by itself."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from gateway.access import sign_in_attempts
from gateway.access.sign_in_attempts import FAILURES, counted_as
from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites


async def tried(site: Site, address: str, token: str = "pxa_wrong") -> int:
    answer = await site.browser(address).post("/admin/login", data={"token": token})
    return answer.status_code


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
        answer = await site.browser("198.51.100.1").post("/admin/login", data={"token": BOOTSTRAP})
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
    assert await tried(site, "198.51.100.5", BOOTSTRAP) == 429
    await later(site, 2)
    assert await tried(site, "198.51.100.5") == 401
    assert await tried(site, "198.51.100.5", BOOTSTRAP) == 303


async def test_good_sign_ins_neither_count_nor_forgive(site: Site) -> None:
    for _ in range(FAILURES - 1):
        await tried(site, "198.51.100.6")
        assert await tried(site, "198.51.100.6", BOOTSTRAP) == 303
    assert await tried(site, "198.51.100.6") == 401
    assert await tried(site, "198.51.100.6", BOOTSTRAP) == 429


async def test_under_attack_an_address_that_has_not_failed_still_gets_in(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in_attempts, "EVERYBODYS_FAILURES", 6)
    for n in range(6):
        assert await tried(site, f"203.0.113.{n}") == 401
    assert [await tried(site, "203.0.113.50") for _ in range(3)] == [401, 401, 429]
    assert await tried(site, "203.0.113.51", BOOTSTRAP) == 303
    assert await tried(site, "203.0.113.51", BOOTSTRAP) == 303


async def test_a_proxy_s_word_counts_only_when_it_is_trusted(sites: Sites) -> None:
    plain, behind = sites(), sites(server__trusted_proxies="198.51.100.0/24")
    forged = {"x-forwarded-for": "192.0.2.200"}
    for n in range(FAILURES):
        browser = plain.browser("198.51.100.9", **{"x-forwarded-for": f"192.0.2.{n}"})
        assert (await browser.post("/admin/login", data={"token": "x"})).status_code == 401
    limited = await plain.browser("198.51.100.9", **forged).post("/admin/login", data={"token": BOOTSTRAP})
    assert limited.status_code == 429, "the header is ignored"
    let_in = await behind.browser("198.51.100.9", **forged).post("/admin/login", data={"token": BOOTSTRAP})
    assert let_in.status_code == 303, "behind the proxy it is another client"


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


async def test_old_counts_are_deleted(site: Site) -> None:
    await tried(site, "198.51.100.11")
    await later(site, 16)
    await tried(site, "198.51.100.12")
    await site.runtime.sign_in_attempts.clear()
    left = (await site.sql("SELECT address FROM sign_in_attempts")).scalars().all()
    assert left == ["198.51.100.12"]


def test_a_network_of_ipv6_is_one_client() -> None:
    assert counted_as(ip_address("2001:db8:1:2:3:4:5:6")) == counted_as(ip_address("2001:db8:1:2::1"))
    assert counted_as(ip_address("2001:db8:1:2::1")) == "2001:db8:1:2::/64"
    assert counted_as(ip_address("2001:db8:1:3::1")) != "2001:db8:1:2::/64"
    assert counted_as(ip_address("192.0.2.7")) == "192.0.2.7"
    assert counted_as(None) == "unknown"
