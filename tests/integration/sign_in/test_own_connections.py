"""What the admin side reads takes connections of its own: paid calls have theirs, whatever it does."""

from __future__ import annotations

import asyncio

from gateway.credits import verify as ledger
from gateway.settings import ADMIN_CONNECTIONS
from tests.integration.sign_in.conftest import BOOTSTRAP, Sites


async def test_reads_of_the_admin_side_take_no_connection_of_paid_calls(sites: Sites) -> None:
    site = sites(database__pool_size="2", database__pool_wait="0.2")
    headers = {"authorization": f"Bearer {(await site.token('viewer')).secret}"}
    async with site.runtime.admin_database.transaction() as connection:
        await ledger.verify(connection)
        browser = site.browser()
        asked = [browser.get("/admin/api/ledger/verify", headers=headers) for _ in range(14)]
        answers = asyncio.gather(*asked)
        most = 0
        while not answers.done():
            most = max(most, site.runtime.database.connections()[0])
            await asyncio.sleep(0)
        statuses = {answer.status_code for answer in await answers}
    assert most == 0
    assert 409 in statuses
    assert statuses <= {409, 503}
    assert site.runtime.settings.database_connections == 2 + ADMIN_CONNECTIONS


async def test_paid_calls_that_take_all_of_theirs_leave_the_admin_side_its_own(sites: Sites) -> None:
    site = sites(database__pool_size="1", database__pool_wait="0.2")
    async with site.runtime.database.transaction():
        browser = await site.signed_in(BOOTSTRAP)
        assert (await browser.get("/admin/api/ledger/verify")).status_code == 200
        assert (await browser.get("/admin/api/status")).json()["database"]["ok"]
