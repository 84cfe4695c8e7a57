"""The dashboard in a real browser: from the first sign-in to a key that is dead again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium, needs_chromium, window
from tests.e2e.data_plane.rig import Rig, caller, order, rig
from tests.e2e.harness import eventually

MODEL = "gemini-3-pro-image-preview"
PAGES = (
    "/admin/",
    "/admin/usage",
    "/admin/teams",
    "/admin/keys",
    "/admin/requests",
    "/admin/tasks",
    "/admin/holds",
    "/admin/upstream-keys",
    "/admin/prices",
    "/admin/alerts",
    "/admin/access",
    "/admin/audit",
    "/admin/connect",
)
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(module_database_url, redis_url) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_a_team_from_its_first_credit_to_its_revoked_key(here: Rig, browser: Browser, tmp_path: Path) -> None:
    base = here.gateway.base
    with window(browser, base) as seen:
        page = seen.page
        sign_in(here, page)
        page.goto("/admin/teams")
        page.get_by_role("link", name="New team").click()
        page.get_by_label("Name", exact=True).fill("Brand <b>studio</b>")
        page.get_by_label("Short name").fill("brand")
        page.get_by_label("Credits in the period").fill("100")
        page.get_by_role("button", name="Create the team").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Brand <b>studio</b>")
        expect(page.get_by_role("status")).to_contain_text("The team was created")

        page.locator("#issue").get_by_label("Name").fill("laptop")
        page.get_by_role("button", name="Issue the key").click()
        key = page.locator(".copyable code").inner_text()
        assert key.startswith("pxg_")

        page.goto("/admin/requests?team=brand")
        expect(page.get_by_text("No request")).to_be_visible()
        client = OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
        client.images.generate(model=MODEL, prompt="A cup", n=1, size="1024x1024")
        row = page.locator("#rows tr")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("settled")
        with caller(base, key) as direct:
            task = direct.post("/v1/async/images/generations", json=order("A cup [fault:duration=4]")).json()
        expect(row).to_have_count(2)
        expect(row.first).to_contain_text("held")
        expect(row.first).to_contain_text("settled", timeout=40_000)

        page.goto(f"/admin/tasks/{task['id']}")
        expect(page.get_by_text("completed")).to_be_visible()
        page.goto("/admin/")
        expect(page.locator(".legend")).to_contain_text("brand 10.00")
        expect(page.locator("canvas")).to_be_visible()
        page.goto("/admin/usage?by=team&team=brand")
        with page.expect_download() as started:
            page.get_by_role("link", name="Download CSV").click()
        lines = list(csv.reader(io.StringIO(Path(started.value.path()).read_text())))
        totals = dict(zip(lines[0], lines[-1], strict=True))
        usage = here.gateway.call("GET", "/usage?team=brand")
        assert (totals["credits"], totals["requests"]) == ("10", "2")
        assert usage["totals"]["credits"] == 10

        page.goto("/admin/teams/brand")
        page.get_by_role("link", name="laptop").click()
        page.get_by_role("link", name="Revoke").click()
        revoke = page.get_by_role("button", name="Revoke")
        expect(revoke).to_be_disabled()
        page.get_by_label("to confirm").fill("laptop")
        revoke.click()
        expect(page.get_by_role("status")).to_contain_text("revoked")
        eventually(lambda: status(base, key) == 401)
        assert seen.complaints == []


@pytest.mark.parametrize(
    ("width", "look"),
    [
        (390, "zh.dark"),
        pytest.param(1280, "en.light", marks=pytest.mark.long),
        pytest.param(1280, "zh.dark", marks=pytest.mark.long),
        pytest.param(390, "en.light", marks=pytest.mark.long),
    ],
)
def test_every_page_stands_in_the_window(here: Rig, browser: Browser, look: str, width: int) -> None:
    """Nothing complains and nothing is wider than the window."""
    with window(browser, here.gateway.base, width=width, height=844, look=look) as seen:
        sign_in(here, seen.page)
        for path in (*PAGES, f"/admin/teams/{here.team}", "/admin/teams/new"):
            answer = seen.page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert seen.page.locator("h1").count() == 1, path
            unnamed = seen.page.evaluate(UNNAMED)
            assert unnamed == [], path
        assert seen.complaints == []


def test_forms_work_without_scripts(here: Rig, browser: Browser) -> None:
    with window(browser, here.gateway.base, scripts=False) as seen:
        page = seen.page
        sign_in(here, page)
        page.goto("/admin/teams/new")
        page.get_by_label("Name", exact=True).fill("Without scripts")
        page.get_by_label("Credits in the period").fill("a hundred")
        page.get_by_role("button", name="Create the team").click()
        wrong = page.locator(".field.wrong")
        expect(wrong).to_contain_text("must be a number of credits")
        expect(page.get_by_label("Name", exact=True)).to_have_value("Without scripts")
        wrong.get_by_role("textbox").fill("1,000.5")
        page.get_by_role("button", name="Create the team").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Without scripts")
        page.get_by_role("button", name="中文").click()
        expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
        page.get_by_role("button", name="English").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


# Fields, buttons and links that a screen reader could not name.
UNNAMED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a[href]')]
  .filter((one) => !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim()))
  .map((one) => one.outerHTML)"""


def sign_in(here: Rig, page: Page) -> None:
    page.goto("/admin/login")
    page.locator("input[name=token]").fill(here.gateway.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"])
    page.locator("button.main").click()
    page.wait_for_url("**/admin/")


def status(base: str, key: str) -> int:
    return httpx.get(
        f"{base}/v1/models", headers={"authorization": f"Bearer {key}"}, trust_env=False
    ).status_code
