"""Debian's Chromium without a window, as the tests of the pages use it; everything it complains of is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",  # pages of our own only, and root may not have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: Chromium is not installed (apt-get install chromium): no page was looked at",
)


@dataclass
class Window:
    """One page of a browser. `complaints` are errors of its console, of its scripts and of its security policy."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def window(
    browser: Browser,
    base: str,
    *,
    scripts: bool = True,
    width: int = 1280,
    height: int = 900,
    look: str = "en.light",
) -> Iterator[Window]:
    """A new profile with one page; `look` is language and theme."""
    context = browser.new_context(
        base_url=base,
        viewport={"width": width, "height": height},
        java_script_enabled=scripts,
        accept_downloads=True,
    )
    context.set_default_timeout(15_000)
    context.add_cookies([{"name": "pxg_look", "value": look, "url": base}])
    page = context.new_page()
    found = Window(page, context)

    def heard(said: ConsoleMessage) -> None:
        if said.type == "error":
            found.complaints.append(said.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    try:
        yield found
    finally:
        context.close()
