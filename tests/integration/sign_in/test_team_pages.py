"""What a team sees on its pages: its own, all of it, and nothing of anybody else's."""

from __future__ import annotations

import csv
import re

import pytest

from benchmarks.plans import recorded
from gateway.credits import quotas
from gateway.credits.amount import MICRO
from gateway.credits.quotas import Limit, Owner
from gateway.limits import limits
from tests.integration.sign_in.conftest import Site
from tests.integration.sign_in.teams import own

PAGES = ("/gateway/", "/gateway/team/tasks", "/gateway/team/requests", "/gateway/team/connect")
MOST_STATEMENTS = 14  # the session, its note, and little for each part


async def test_a_team_sees_its_spending_quotas_tasks_and_requests(site: Site) -> None:
    team = await own(site, "Mine", name="my laptop", requests_per_minute=77)
    async with site.runtime.database.transaction() as connection:
        limit = Limit(100 * MICRO, enforce=True)
        await quotas.put(connection, "test", Owner(team.team.id), "month", limit)
        await quotas.put(connection, "test", Owner(team.team.id, team.key_id), "day", limit)
    await team.spend(12, "model-a")
    await team.spend(5, "model-b")
    await team.spend(7, "model-b", settled=False)
    await team.task("task_mine", "model-c")
    browser = await team.browser()
    with recorded(site.runtime.admin_database) as statements:
        home = (await browser.get("/gateway/?by=key")).text
    assert len(statements) <= MOST_STATEMENTS, statements
    for said in (
        "17.00",
        "27.00 of 100.00 credits",
        "73.00 left",
        "task_mine",
        "my laptop",
        "key 77",
        "The whole team",
    ):
        assert said in home, said
    assert f"pxg_{team.key_id}_…{team.secret[-4:]}" in home
    chart = (await browser.get("/gateway/?by=model")).text
    assert re.search(r"model-a 12\.00", chart)
    assert "task_mine" in (await browser.get("/gateway/team/tasks")).text
    requests = (await browser.get("/gateway/team/requests?state=held")).text
    assert requests.count('<th scope="row"') == 2
    connect = (await browser.get("/gateway/team/connect?lang=python")).text
    assert "http://gateway.test/v1" in connect
    assert "from openai import OpenAI" in connect


async def test_nothing_of_others_or_of_upstream_keys_is_shown(site: Site) -> None:
    mine, theirs = await own(site, "Mine"), await own(site, "Theirs", name="their laptop")
    await theirs.spend(41, "model-theirs")
    await theirs.task("task_theirs", "model-theirs")
    await mine.spend(2, "model-mine")
    await mine.task("task_of_mine", "model-mine")
    browser = await mine.browser()
    shown = "".join(
        [
            (await browser.get(path + query)).text
            for path in PAGES
            for query in ("", "?format=csv", "?by=key", "?by=team", f"?range=90d&team={theirs.team.id}")
        ]
    )
    assert "model-mine" in shown
    assert "task_of_mine" in shown
    for secret in ("model-theirs", "task_theirs", theirs.team.slug, theirs.key_id, "their laptop", "41.00"):
        assert secret not in shown, secret
    for pooled in ("pooled-one", "account-one", "zzzz"):
        assert pooled not in shown, pooled


async def test_files_add_up(site: Site) -> None:
    team = await own(site, "Files")
    await team.spend(12, "=cmd()")
    await team.spend(5, "model-b")
    await team.task("task_file", "model-b")
    browser = await team.browser()
    files = {}
    for name, path in (("usage", "/gateway/"), ("tasks", PAGES[1]), ("requests", PAGES[2])):
        answer = await browser.get(f"{path}?format=csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert f'attachment; filename="{name}-' in answer.headers["content-disposition"]
        files[name] = list(csv.reader(answer.text.splitlines()))
    head, *rows, total = files["usage"]
    at = head.index("credits")
    assert (sum(float(row[at]) for row in rows), total[0], total[at]) == (17.0, "total", "17")
    head, *rows, total = files["requests"]
    assert (len(rows), total[head.index("quote")], total[head.index("settled")]) == (3, "20", "17")
    assert {row[head.index("model")] for row in rows} == {"'=cmd()", "model-b"}, "no formula"
    assert [row[0] for row in files["tasks"][1:]] == ["task_file"]


async def test_lists_go_on_by_keyset(site: Site) -> None:
    team = await own(site, "Long")
    for number in range(53):
        await team.spend(1, f"model-{number:02}")
    browser = await team.browser()
    first = (await browser.get("/gateway/team/requests")).text
    [after] = re.findall(r'after=([A-Za-z0-9_-]+)"', first)
    second = (await browser.get(f"/gateway/team/requests?after={after}")).text
    assert (first.count('<th scope="row"'), second.count('<th scope="row"')) == (50, 3)
    assert "model-02" in second
    assert "model-03" not in second
    wrong = await browser.get("/gateway/team/requests?after=nonsense!")
    assert (wrong.status_code, "text/html" in wrong.headers["content-type"]) == (400, True)


async def test_what_runs_is_asked_for_alone(site: Site) -> None:
    team = await own(site, "Live")
    await team.task("task_live", "model-a")
    browser = await team.browser()
    for path in ("/gateway/", "/gateway/team/tasks"):
        part = (await browser.get(path, headers={"hx-request": "true"})).text
        assert "task_live" in part
        assert "<html" not in part


@pytest.mark.parametrize("path", PAGES)
async def test_empty_pages_teach_the_next_step(site: Site, path: str) -> None:
    browser = await (await own(site, "New")).browser()
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert "/gateway/team/connect" in answer.text
    assert 'action="/gateway/logout"' in answer.text
    assert 'action="/admin' not in answer.text
    assert 'href="/admin' not in answer.text


async def test_hostile_text_is_escaped_and_nothing_foreign_runs(site: Site) -> None:
    team = await own(site, '<script>alert("t")</script>', name="<img src=x onerror=alert(1)>")
    await team.spend(1, "<b>model</b>")
    browser = await team.browser()
    for path in PAGES:
        answer = await browser.get(f'{path}?range="><script>&model=<script>&state=<script>&lang=<script>')
        assert answer.status_code == 200
        assert "<script>" not in answer.text
        assert "<img" not in answer.text
        assert "<b>model" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"""<style|\sstyle=|\son[a-z]+=["']""", answer.text)


async def test_language_and_theme_are_chosen_here_too(site: Site) -> None:
    browser = await (await own(site)).browser()
    answer = await browser.post(
        "/gateway/look", data={"theme": "dark", "next": "/gateway/team/tasks?state=ended"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/gateway/team/tasks?state=ended")
    assert 'data-theme="dark"' in (await browser.get("/gateway/")).text


async def test_the_pages_draw_on_the_free_allowance_of_the_key(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FREE_FACTOR", 1)
    monkeypatch.setattr(limits, "FREE_LEAST", 3)
    browser = await (await own(site, requests_per_minute=1)).browser()
    answers = [await browser.get("/gateway/team/connect") for _ in range(5)]
    assert [answer.status_code for answer in answers][:4] == [200, 200, 200, 429]
    assert int(answers[3].headers["retry-after"]) > 0
    assert "text/html" in answers[3].headers["content-type"]
    assert "requests_per_minute" in answers[3].text
    part = await browser.get("/gateway/", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-reswap"]) == (429, "none"), "what is shown stays"
