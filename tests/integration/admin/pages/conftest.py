"""The dashboard over HTTP, in this process, signed in as an admin and as a viewer."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites
from tests.integration.sign_in.conftest import sites as sites  # the fixture


@dataclass
class Dashboard:
    """Two signed-in browsers; nothing is followed by itself."""

    site: Site
    admin: httpx.AsyncClient
    viewer: httpx.AsyncClient

    async def api(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The answer of the admin API; anything but a success fails the test."""
        answer = await self.admin.request(method, f"/admin/api{path}", json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    async def page(self, path: str, status: int = 200, **query: str) -> str:
        """A page as the viewer sees it, its text unescaped and without tags."""
        return text_of(await self.source(path, status, **query))

    async def source(self, path: str, status: int = 200, **query: str) -> str:
        answer = await self.viewer.get(f"/admin{path}", params=query or None)
        assert answer.status_code == status, answer.text
        return answer.text

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """A form sent by the admin's browser."""
        headers = {"content-type": "application/x-www-form-urlencoded"}  # of an empty one too
        return await self.admin.post(f"/admin{path}", data=fields, headers=headers)

    async def done(self, path: str, **fields: str) -> str:
        """Where a form leads that was taken."""
        answer = await self.post(path, **fields)
        assert answer.status_code == 303, text_of(answer.text)
        return str(answer.headers["location"])


@pytest.fixture
async def dashboard(sites: Sites) -> Dashboard:
    site = sites()
    viewer = await site.token("viewer")
    return Dashboard(site, await site.signed_in(BOOTSTRAP), await site.signed_in(viewer.secret))


def text_of(source: str) -> str:
    """What a person reads of a page."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", source, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))
