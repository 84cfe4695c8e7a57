"""Who is signed in, and ending it from the dashboard."""

from __future__ import annotations

from tests.integration.admin.pages.conftest import Dashboard


async def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(dashboard: Dashboard) -> None:
    await dashboard.site.sql("UPDATE admin_sessions SET last_seen_at = now() - interval '20 minutes'")
    old = "SELECT count(*) FROM admin_sessions WHERE last_seen_at < now() - interval '10 minutes'"
    polled = await dashboard.viewer.get("/admin/requests", headers={"hx-request": "true"})
    assert polled.status_code == 200
    before = (await dashboard.site.sql(old)).scalar()
    await dashboard.page("/requests")
    assert (await dashboard.site.sql(old)).scalar() == before - 1


async def test_an_admin_ends_the_session_of_another(dashboard: Dashboard) -> None:
    text = await dashboard.page("/access")
    assert "Signed in now" in text
    assert "this browser" in text
    found = (await dashboard.api("GET", "/sessions"))["data"]
    other = next(one for one in found if one["role"] == "viewer")  # the newest
    refused = await dashboard.viewer.post(
        f"/admin/access/sessions/{other['id']}/end",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert refused.status_code == 403
    assert await dashboard.done(f"/access/sessions/{other['id']}/end") == "/admin/access?done=session-ended"
    signed_out = await dashboard.viewer.get("/admin/access")
    assert signed_out.headers["location"].startswith("/admin/login")
