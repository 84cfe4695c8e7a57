"""Who may call: one 401 for every key problem, 403 for what a good key may not do, rotation and revocation."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.access.key_format import checksum
from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, MODEL, PAID, SYNC, Rig, caller, error_of, order
from tests.e2e.harness import eventually

Headers = list[tuple[str, str]]


def bearer(key: str) -> Headers:
    return [("authorization", f"Bearer {key}")]


def wrong_checksum(key: str) -> str:
    return key[:-1] + ("a" if key[-1] != "a" else "b")


def well_formed_but_unknown(key: str) -> str:
    body = key[:4] + "A" * 10 + key[14:-6]
    return body + checksum(body)


def revoked(rig: Rig) -> str:
    key = rig.gateway.key(rig.team)
    rig.gateway.call("POST", f"/keys/{key[4:14]}/revoke")
    return key


def expired(rig: Rig) -> str:
    key = rig.gateway.key(rig.team)
    rig.database.execute(
        "UPDATE team_keys SET expires_at = now() - interval '1 s' WHERE id = %s", [key[4:14]]
    )
    return key


# What is sent instead of one good key: headers and query, from the rig.
PROBLEMS: dict[str, Callable[[Rig], tuple[Headers, str]]] = {
    "missing": lambda rig: ([], ""),
    "empty": lambda rig: ([("authorization", "")], ""),
    "no token": lambda rig: ([("authorization", "Bearer")], ""),
    "no scheme": lambda rig: ([("authorization", rig.key)], ""),
    "another scheme": lambda rig: ([("authorization", f"Token {rig.key}")], ""),
    "basic": lambda rig: ([("authorization", "Basic cHhnOnNlY3JldA==")], ""),
    "malformed": lambda rig: (bearer("pxg_short"), ""),
    "pixapi's own": lambda rig: (bearer(rig.secret), ""),
    "an admin token": lambda rig: (bearer(rig.gateway.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]), ""),
    "ten kilobytes": lambda rig: (bearer("pxg_" + "A" * 10_000), ""),
    "sql": lambda rig: (bearer("' OR 1=1 --"), ""),
    "two in one": lambda rig: (bearer(f"{rig.key}, {rig.key}"), ""),
    "more behind": lambda rig: (bearer(rig.key + "x"), ""),
    "wrong checksum": lambda rig: (bearer(wrong_checksum(rig.key)), ""),
    "unknown": lambda rig: (bearer(well_formed_but_unknown(rig.key)), ""),
    "expired": lambda rig: (bearer(expired(rig)), ""),
    "revoked": lambda rig: (bearer(revoked(rig)), ""),
    "twice the same": lambda rig: (bearer(rig.key) * 2, ""),
    "with another": lambda rig: ([*bearer(rig.key), ("authorization", "Basic eA==")], ""),
    "in the query": lambda rig: ([], f"?key={rig.key}&api_key={rig.key}&access_token={rig.key}"),
    "in a cookie": lambda rig: ([("cookie", f"authorization=Bearer {rig.key}; key={rig.key}")], ""),
    "in other headers": lambda rig: ([("x-api-key", rig.key), ("api-key", rig.key)], ""),
    "for the proxy": lambda rig: ([("proxy-authorization", f"Bearer {rig.key}")], ""),
}


def refusal(answer: httpx.Response) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body without what differs between any two answers."""
    error = error_of(answer, 401, "authentication_error", "invalid_key")
    headers = [(name, value) for name, value in answer.headers.raw if name not in (b"date", b"x-request-id")]
    return headers, answer.content.replace(error["request_id"].encode(), b"")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_key_problem_gets_the_same_answer(shared: Rig, problem: str) -> None:
    headers, query = PROBLEMS[problem](shared)
    with shared.caller() as nobody:
        reference = refusal(nobody.get("/v1/models"))
        answer = nobody.get(f"/v1/models{query}", headers=headers)
    assert refusal(answer) == reference
    assert answer.headers["www-authenticate"] == "Bearer"
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "path", [*PAID, "/v1/tasks/task_1", "/v1/models", "/gateway/account", "/gateway/usage", "/gateway/tasks"]
)
def test_no_route_of_a_team_works_without_a_key(shared: Rig, path: str) -> None:
    method = "POST" if path in PAID else "GET"
    with shared.caller() as nobody:
        answer = nobody.request(method, path, json=order() if path in PAID else None)
    error_of(answer, 401, "authentication_error", "invalid_key")
    assert shared.untouched(answer)


def test_a_key_is_refused_before_its_body_is_looked_at(shared: Rig) -> None:
    with shared.caller() as nobody:
        answer = nobody.post(f"{SYNC}?async=true", content=b"{nonsense")
    error_of(answer, 401, "authentication_error")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_s_case_does_not_matter(shared: Rig, scheme: str) -> None:
    with shared.caller() as client:
        answer = client.get("/v1/models", headers={"authorization": f"{scheme} {shared.key}"})
    assert answer.status_code == 200


def test_a_suspended_team_is_told_so_until_it_is_resumed(shared: Rig) -> None:
    team = shared.new_team()
    with shared.caller(shared.gateway.key(team)) as client:
        assert client.post(SYNC, json=order()).status_code == 200
        shared.gateway.call("POST", f"/teams/{team}/suspend")
        for answer in (client.get("/v1/models"), client.post(SYNC, json=order())):
            error_of(answer, 403, "permission_error", "team_suspended")
            assert shared.untouched(answer)
        shared.gateway.call("POST", f"/teams/{team}/resume")
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("team_models", "key_models", "asked", "allowed"),
    [
        (None, [MODEL], MODEL, True),
        (None, [MODEL], "nano-banana", True),
        (None, [MODEL], "gpt-image-2", False),
        (None, [MODEL], "nano-banana-pro", False),
        ([MODEL], None, "nano-banana", True),
        ([MODEL], None, "gpt-image-2", False),
        ([MODEL, "gpt-image-2"], ["gpt-image-2", "veo"], "gpt-image-2", True),
        ([MODEL, "gpt-image-2"], ["gpt-image-2", "veo"], "nano-banana", False),
        (None, [MODEL], "no-such-model", False),
    ],
)
def test_a_model_must_be_allowed_for_team_and_key(
    shared: Rig, team_models: list[str] | None, key_models: list[str] | None, asked: str, allowed: bool
) -> None:
    team = shared.new_team(allowed_models=team_models)
    with shared.caller(shared.gateway.key(team, allowed_models=key_models)) as client:
        answer = client.post(SYNC, json=order() | {"model": asked})
    if allowed:
        assert answer.status_code == 200
    else:
        error = error_of(answer, 403, "permission_error", "model_not_allowed")
        assert asked in error["message"]
        assert shared.untouched(answer)


def test_a_model_without_a_price_is_refused(shared: Rig) -> None:
    for path, model in ((SYNC, "no-such-model"), ("/v1/async/videos/generations", "sora-2")):
        answer = shared.client.post(path, json=order() | {"model": model})
        error_of(answer, 403, "permission_error", "model_without_price")
        assert shared.untouched(answer)


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (["127.0.0.1"], True),
        (["10.0.0.0/8", "127.0.0.0/8"], True),
        (["::ffff:127.0.0.1"], True),
        (["10.1.2.3"], False),
        (["::1"], False),
    ],
)
def test_a_key_may_be_bound_to_addresses(shared: Rig, addresses: list[str], allowed: bool) -> None:
    key = shared.gateway.key(shared.team, allowed_addresses=addresses)
    # Nobody has named a trusted proxy, so these say nothing.
    forged = {"x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3", "x-real-ip": "10.1.2.3"}
    with shared.caller(key) as client:
        for answer in (client.get("/v1/models", headers=forged), client.post(SYNC, json=order())):
            if allowed:
                assert answer.status_code == 200
            else:
                error_of(answer, 403, "permission_error", "address_not_allowed")
                assert shared.untouched(answer)


def test_a_rotated_key_works_beside_its_successor(shared: Rig) -> None:
    old = shared.gateway.key(shared.team, allowed_models=[MODEL])
    made = shared.gateway.call("POST", f"/keys/{old[4:14]}/rotate", json={"overlap_seconds": 2})
    with shared.caller(old) as before, shared.caller(made["secret"]) as after:
        assert before.get("/v1/models").status_code == 200
        for client in (before, after):
            answer = client.post(SYNC, json=order() | {"model": "gpt-image-2"})
            error_of(answer, 403, "permission_error", "model_not_allowed")
        eventually(lambda: before.get("/v1/models").status_code == 401, 4)
        assert after.get("/v1/models").status_code == 200


def test_rotation_without_overlap_ends_the_old_key_at_once(shared: Rig) -> None:
    old = shared.gateway.key(shared.team)
    with shared.caller(old) as before:
        assert before.get("/v1/models").status_code == 200
        made = shared.gateway.call("POST", f"/keys/{old[4:14]}/rotate", json={"overlap_seconds": 0})
        error_of(before.get("/v1/models"), 401, "authentication_error")
    with shared.caller(made["secret"]) as after:
        assert after.get("/v1/models").status_code == 200


def test_an_expiry_takes_effect_on_a_key_in_use(shared: Rig) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    with shared.caller(shared.gateway.key(shared.team, expires_at=ends.isoformat())) as client:
        assert client.get("/v1/models").status_code == 200
        eventually(lambda: client.get("/v1/models").status_code == 401, 3)
        assert datetime.now(UTC) >= ends - timedelta(seconds=0.1)


def test_a_revoked_key_ends_at_once_here_and_in_ten_seconds_elsewhere(shared: Rig) -> None:
    key = shared.gateway.key(shared.team)
    with (
        harness.beside(shared.gateway.environment) as other,
        shared.caller(key) as here,
        caller(other.base, key) as there,
    ):
        assert there.get("/v1/models").status_code == 200
        assert here.get("/v1/models").status_code == 200
        shared.gateway.call("POST", f"/keys/{key[4:14]}/revoke")
        since = time.monotonic()
        error_of(here.get("/v1/models"), 401, "authentication_error")
        error_of(here.post(ASYNC, json=order()), 401, "authentication_error")
        # Asking all the time must not keep the other process's memory of the key alive.
        eventually(lambda: there.get("/v1/models").status_code == 401, 11, 0.1)
        assert time.monotonic() - since < 11
        error_of(there.post(SYNC, json=order()), 401, "authentication_error")
