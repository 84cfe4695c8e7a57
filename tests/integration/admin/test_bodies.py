"""How the admin API reads bodies, and that no secret comes out again."""

from __future__ import annotations

import logging

import httpx
import pytest

from gateway.admin.api.http import LARGEST_BODY
from gateway.admin.api.routes import ROUTES
from tests.integration.admin.conftest import Admin

CANARY = "sk-canary-4f9d1c7be0a85326"


async def _post(
    admin: Admin, content: bytes, content_type: str | None = "application/json"
) -> httpx.Response:
    headers = {} if content_type is None else {"content-type": content_type}
    return await admin.http.post("/admin/api/teams", content=content, headers=headers)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"name": "a", "name": "b"}',
        b'{"name": NaN}',
        b"{} {}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"name": "\\ud800"}',
        b"[" * 10_000,
    ],
)
async def test_a_body_is_one_strict_json_object(admin: Admin, content: bytes) -> None:
    answer = await _post(admin, content)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("number", ["9" * 19, "9" * 5000, "1e400", "-" + "9" * 30, "1e-400000", "1e999999"])
async def test_a_number_beyond_all_bounds_is_named_with_all_else(admin: Admin, number: str) -> None:
    content = f'{{"name": "a", "max_in_flight": {number}, "slug": "A", "unlimited": true}}'
    answer = await _post(admin, content.encode())
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith("slug: ")
    assert "; max_in_flight: must be a whole number from 1 to 1000000" in message


@pytest.mark.parametrize("number", ["9" * 19, "9" * 5000, "1e400", "1e999999", "-" + "9" * 5000])
async def test_absurd_credits_are_named(admin: Admin, number: str) -> None:
    content = f'{{"name": "a", "quota": {{"period": "day", "limit": {number}}}}}'
    answer = await _post(admin, content.encode())
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("quota.limit: credits must")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json"]
)
async def test_another_content_type_is_refused(admin: Admin, content_type: str | None) -> None:
    answer = await _post(admin, b'{"name": "a"}', content_type)
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "unsupported_media_type")


async def test_parameters_of_the_content_type_are_fine(admin: Admin) -> None:
    answer = await _post(admin, b'{"name": "Typed", "unlimited": true}', "Application/JSON; charset=utf-8")
    assert answer.status_code == 201


async def test_no_body_is_an_empty_object(admin: Admin) -> None:
    answer = await _post(admin, b"", None)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("name: required; quota: required")


async def test_a_body_has_a_largest_size(admin: Admin) -> None:
    answer = await _post(admin, b" " * (LARGEST_BODY + 1))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


async def test_values_of_unknown_fields_are_not_repeated(admin: Admin) -> None:
    status, _, message = await admin.refused("POST", "/upstream-keys", {"label": "x", "secrett": CANARY})
    assert status == 400
    assert message == "secret: required; secrett: unknown field, did you mean secret?"


async def test_no_secret_comes_out_again(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await admin.team("Canary")
    key = await admin.key("canary")
    token = await admin.ok("POST", "/admin-tokens", {"name": "canary", "role": "viewer"})
    upstream = await admin.ok("POST", "/upstream-keys", {"label": "canary", "secret": CANARY})
    rotated = await admin.ok("POST", f"/keys/{key['id']}/rotate")
    answers = [
        (await admin.call("POST", "/upstream-keys", {"label": "canary-2", "secret": CANARY})).text,
        (await admin.call("POST", "/upstream-keys", {"label": "canary-2", "secret": f"{CANARY} x"})).text,
        (await admin.call("PATCH", "/upstream-keys/canary", {"secret": CANARY})).text,
        (await admin.call("POST", "/upstream-keys/canary/drain")).text,
        (await admin.call("POST", f"/keys/{key['id']}/revoke")).text,
    ]
    idents = {"{team}": "canary", "{id}": key["id"], "{period}": "day"}
    for row in ROUTES:
        if row.method == "GET":
            path = row.path
            for name, value in idents.items():
                path = path.replace(name, value)
            answers.append((await admin.call("GET", path)).text)
    answers.append((await admin.call("GET", f"/upstream-keys/{upstream['id']}")).text)
    answers.append((await admin.call("DELETE", "/upstream-keys/canary")).text)
    answers.append((await admin.call("GET", "/audit", limit="200")).text)
    everything = "\n".join(answers) + caplog.text
    for secret in (CANARY, key["secret"], rotated["secret"], token["secret"]):
        assert secret not in everything
        assert secret[-20:-4] not in everything
