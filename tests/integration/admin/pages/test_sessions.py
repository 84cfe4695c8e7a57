"""Who is signed in, and ending it from the dashboard."""

from __future__ import annotations

from tests.integration.admin.pages.conftest import Dashboard


async def test_an_admin_ends_the_session_of_another(dashboard: Dashboard) -> None:
    text = await dashboard.page("/access")
    assert "Signed in now" in text
    assert "this browser" in text
    [other] = [one for one in (await dashboard.api("GET", "/sessions"))["data"] if one["role"] == "viewer"]
    refused = await dashboard.viewer.post(
        f"/admin/access/sessions/{other['id']}/end",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert refused.status_code == 403
    assert await dashboard.done(f"/access/sessions/{other['id']}/end") == "/admin/access?done=session-ended"
    signed_out = await dashboard.viewer.get("/admin/access")
    assert signed_out.headers["location"].startswith("/admin/login")
