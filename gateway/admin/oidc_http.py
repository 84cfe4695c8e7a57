"""The one place that speaks HTTP to the sign-in provider: few calls, each bounded in time and size.

Sign-ins are rare, so httpx's own pool does (ADR 0030 is about paid calls), and no connection is kept. Redirects are
not followed: what is sent holds a secret. HTTPS_PROXY and NO_PROXY are obeyed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx

from gateway import __version__
from gateway.admin.oidc_terms import ProviderError
from gateway.trust import trusting

LARGEST_ANSWER = 1024 * 1024
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0


class ProviderHttp:
    """GET and POST of JSON. `ca_file` is trusted instead of the system's authorities."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._tls = trusting(ca_file)

    async def get(self, url: str, bearer: str | None = None) -> dict[str, Any]:
        """The JSON object at `url`; ProviderError for everything else."""
        headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        status, answer = await self._ask("GET", url, headers, None)
        if status != 200:
            raise ProviderError(f"{_place(url)} answered {status}")
        return answer

    async def post(
        self, url: str, fields: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer to a form; ProviderError unless the status is 2xx or 4xx."""
        form = {"content-type": "application/x-www-form-urlencoded"}
        status, answer = await self._ask("POST", url, {**form, **headers}, urlencode(fields).encode())
        if status // 100 not in (2, 4):
            raise ProviderError(f"{_place(url)} answered {status}")
        return status, answer

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, dict[str, Any]]:
        own = {"accept": "application/json", "user-agent": f"pixapi-gateway/{__version__}"}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                httpx.AsyncClient(verify=self._tls, timeout=timeout, follow_redirects=False) as client,
                client.stream(method, url, headers={**own, **headers}, content=body) as answer,
            ):
                return answer.status_code, _object(url, await _read(url, answer))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            raise ProviderError(f"{_place(url)}: {type(error).__name__}") from error


async def _read(url: str, answer: httpx.Response) -> bytes:
    found = bytearray()
    async for chunk in answer.aiter_bytes():
        found += chunk
        if len(found) > LARGEST_ANSWER:
            raise ProviderError(f"{_place(url)} answered more than {LARGEST_ANSWER} bytes")
    return bytes(found)


def _object(url: str, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderError(f"{_place(url)} did not answer a JSON object")
    return found


def _place(url: str) -> str:
    """The address without its query, for the log."""
    return url.partition("?")[0]
