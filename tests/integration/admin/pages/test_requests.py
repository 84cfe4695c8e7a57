"""Requests, tasks and holds on the dashboard: lists that keep themselves up to date, stories, and a person's word."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.integration.admin.pages.conftest import Dashboard, text_of
from tests.integration.admin.pages.traffic import traffic

LIVE = {"hx-request": "true"}
HOSTILE = '"><script>alert(1)</script>'


async def test_requests_are_listed_narrowed_and_summed(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Listed")
    await made.settled("req_first", 8, 6)
    await made.settled("req_second", 16, 16, estimated=True, flags=("overrun",))
    await made.unknown("req_lost", 4)
    text = await dashboard.page("/requests", team="listed")
    assert all(
        word in text
        for word in ("key of Listed", "a-model", "account Listed", "overrun", "estimated", "unknown")
    )
    assert "req_lost" not in await dashboard.page("/requests", team="listed", state="settled")
    assert "No request matches" in await dashboard.page(
        "/requests", model="a-model", team="listed", to="2020-01-01"
    )
    assert "req_first" in await dashboard.page("/requests?team=listed&from=2020-01-01")
    answer = await dashboard.viewer.get("/admin/requests", params={"team": "listed", "format": "csv"})
    *rows, total = csv.DictReader(io.StringIO(answer.text))
    assert [row["request_id"] for row in rows] == ["req_lost", "req_second", "req_first"]
    usage = await dashboard.api("GET", "/usage", team="listed")
    assert (total["quote"], float(total["settled"])) == ("28", usage["totals"]["credits"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"state": "odd"}, "must be one of"),
        ({"from": "soon"}, "must be a date"),
        ({"team": "none-such"}, "no team"),
    ],
)
@pytest.mark.parametrize("path", ["/requests", "/holds"])
async def test_a_filter_that_cannot_be_says_so(
    dashboard: Dashboard, path: str, query: dict[str, str], said: str
) -> None:
    answer = await dashboard.viewer.get(f"/admin{path}", params=query)
    assert answer.status_code == 400
    assert said in text_of(answer.text)


async def test_a_list_that_has_not_changed_is_not_sent_again(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Polled")
    hold = await made.held("req_polled")
    where = "/admin/requests?team=polled"
    page = await dashboard.viewer.get(where)
    assert f'hx-get="{where}" hx-trigger="every 3s" hx-swap="innerMorph"' in page.text
    assert page.headers["cache-control"] == "no-store"
    first = await dashboard.viewer.get(where, headers=LIVE)
    assert "<html" not in first.text
    assert f'id="r-{hold}"' in first.text
    assert first.headers["cache-control"] == "no-cache, private"
    assert "hx-request" in first.headers.get_list("vary")
    known = {**LIVE, "if-none-match": first.headers["etag"]}
    again = await dashboard.viewer.get(where, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    await made.settled("req_more")
    after = await dashboard.viewer.get(where, headers=known)
    assert after.status_code == 200
    assert after.text.index("req_more") < after.text.index("req_polled")
    for paused in (
        "live=0",
        "limit=1&after=" + (await dashboard.api("GET", "/requests", team="polled", limit="1"))["next"],
    ):
        assert "hx-trigger" not in (await dashboard.viewer.get(f"{where}&{paused}")).text


async def test_a_poll_without_a_session_leads_to_the_form(dashboard: Dashboard) -> None:
    answer = await dashboard.site.browser().get("/admin/requests", headers=LIVE)
    assert answer.status_code == 200
    assert answer.headers["hx-redirect"].startswith("/admin/login")


@pytest.mark.parametrize("request_id", ["order:7.1_a-b", "look-up", "..."])
async def test_a_story_is_found_by_any_id_a_client_may_choose(dashboard: Dashboard, request_id: str) -> None:
    made = await traffic(dashboard, f"Story {request_id}")
    await made.unknown(request_id)
    await made.settled(request_id)
    looked = await dashboard.viewer.get("/admin/requests", params={"id": f" {request_id} "})
    assert (looked.status_code, looked.headers["location"]) == (303, f"/admin/requests/{request_id}")
    text = await dashboard.page(f"/requests/{request_id}")
    assert "An earlier request with the same id (1 of 1)" in text
    assert "Sent to Pixapi" in text
    assert f"account Story {request_id}" in text
    assert f"/admin/requests/{request_id}" in await dashboard.source("/requests", request_id=request_id)


async def test_an_id_that_would_be_a_folder_has_its_story_too(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Folder")
    await made.settled("..")
    assert 'href="/admin/requests?id=.."' in await dashboard.source("/requests", team="folder")
    assert "Executed" in await dashboard.page("/requests", id="..")


@pytest.mark.parametrize("request_id", ["never-was", HOSTILE, "ä b/c"])
async def test_an_unknown_id_is_explained(dashboard: Dashboard, request_id: str) -> None:
    answer = await dashboard.viewer.get("/admin/requests", params={"id": request_id})
    if answer.status_code == 303:
        answer = await dashboard.viewer.get(answer.headers["location"])
    assert answer.status_code == 404
    assert HOSTILE not in answer.text
    assert "Nothing is known of this request id" in answer.text
    assert 'name="id"' in answer.text


async def test_tasks_are_listed_and_live(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Tasked")
    await made.task("req_task_1", "task_running", b"{}", ended=False)
    await made.task("req_task_2", "task_ended", b"{}", ended=True)
    text = await dashboard.page("/tasks", ended="false")
    assert "task_running" in text
    assert "task_ended" not in text
    assert "7.00" in await dashboard.page("/tasks?status=completed")
    first = await dashboard.viewer.get("/admin/tasks?team=tasked", headers=LIVE)
    assert 'id="t-task_ended"' in first.text
    known = {**LIVE, "if-none-match": first.headers["etag"]}
    assert (await dashboard.viewer.get("/admin/tasks?team=tasked", headers=known)).status_code == 304
    answer = await dashboard.viewer.get("/admin/tasks", params={"team": "tasked", "format": "csv"})
    *_, total = csv.DictReader(io.StringIO(answer.text))
    assert total["credits_cost"] == "7"


async def test_pictures_are_shown_when_asked_for_and_from_their_origins_alone(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Pictured")
    urls = [
        "https://cdn.example.com/1.png?a=1&b=2",
        "javascript:alert(1)",
        'https://cdn.example.com/"><script>',
    ]
    body = json.dumps({"result": {"type": "image", "data": [{"url": url} for url in urls]}}).encode()
    await made.task("req_pictures", "task_pictures", body, ended=True)
    plain = await dashboard.viewer.get("/admin/tasks/task_pictures")
    assert "cdn.example.com" not in plain.text + plain.headers["content-security-policy"]
    assert "loads them from Pixapi" in text_of(plain.text)
    shown = await dashboard.viewer.get("/admin/tasks/task_pictures?pictures=1")
    assert (
        'src="https://cdn.example.com/1.png?a=1&amp;b=2" loading="lazy" referrerpolicy="no-referrer"'
        in shown.text
    )
    assert "javascript:" not in shown.text
    assert "img-src 'self' data: https://cdn.example.com;" in shown.headers["content-security-policy"]
    assert "req_pictures" in shown.text
    await made.task("req_still", "task_still", body, ended=False)
    assert "<img" not in await dashboard.source("/tasks/task_still", pictures="1")


async def test_the_first_holds_shown_are_those_that_wait(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Waiting")
    hold = await made.unknown("req_waits")
    await made.held("req_runs")
    source = await dashboard.source("/holds", team="waiting")
    assert "req_waits" in source
    assert "req_runs" not in source
    assert "/resolve" not in source  # a viewer reads
    for state in ("held", "all"):
        assert "req_runs" in await dashboard.source("/holds", team="waiting", state=state)
    page = await dashboard.admin.get("/admin/holds?team=waiting")
    assert f"/admin/holds/{hold}/resolve" in page.text


async def test_a_hold_is_settled_by_a_person_with_a_reason(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Resolved")
    hold = await made.unknown("req_resolved")
    form = await dashboard.admin.get(f"/admin/holds/{hold}/resolve")
    assert "Its story" in form.text
    assert "upstream key &#39;account Resolved&#39;" in form.text
    wrong = await dashboard.post(f"/holds/{hold}/resolve", credits="lots", outcome="settle", reason="")
    assert wrong.status_code == 400
    assert 'value="lots"' in wrong.text
    assert "must be a number of credits" in wrong.text
    assert "required" in text_of(wrong.text)
    nothing = await dashboard.post(f"/holds/{hold}/resolve", reason=HOSTILE)
    assert "Say which of the two it was" in nothing.text
    assert HOSTILE not in nothing.text
    done = await dashboard.done(
        f"/holds/{hold}/resolve", outcome="settle", credits="5.5", reason="on the bill"
    )
    assert done == "/admin/holds?done=hold-resolved"
    found = await dashboard.api("GET", f"/holds/{hold}")
    assert (found["state"], found["settled"], found["reason"]) == ("settled", 5.5, "on the bill")
    [entry] = (await dashboard.api("GET", "/audit", subject_type="hold", subject_id=str(hold)))["data"]
    assert entry["action"] == "hold.resolve"
    assert "Last change: hold.resolve" in await dashboard.page("/requests/req_resolved")
    again = await dashboard.post(f"/holds/{hold}/resolve", outcome="release", reason="again")
    assert again.status_code == 400
    assert "only an unknown one waits" in text_of(again.text)


async def test_a_released_hold_ignores_the_credits_field(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Released")
    hold = await made.unknown("req_released")
    await dashboard.done(f"/holds/{hold}/resolve", outcome="release", credits="3", reason="not on the bill")
    assert (await dashboard.api("GET", f"/holds/{hold}"))["state"] == "released"


async def test_viewers_and_other_sites_resolve_nothing(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Kept")
    hold = await made.unknown("req_kept")
    path, form = f"/admin/holds/{hold}/resolve", {"outcome": "release", "reason": "x"}
    assert (await dashboard.viewer.get(path)).status_code == 403
    assert (await dashboard.viewer.post(path, data=form)).status_code == 403
    elsewhere = {"origin": "https://elsewhere.example", "sec-fetch-site": "cross-site"}
    assert (await dashboard.admin.post(path, data=form, headers=elsewhere)).status_code == 403
    assert (await dashboard.api("GET", f"/holds/{hold}"))["state"] == "unknown"
