"""The model list: what the pool's accounts offer together, narrowed to what the caller may use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.data_plane.rig import (
    MODEL,
    SYNC,
    VIDEOS,
    Rig,
    digest_of,
    error_of,
    new_account,
    new_secret,
    order,
)
from tests.e2e.harness import eventually

PRO = "gemini-3-pro-image-preview"
LITTLE, LARGE = ["gemini-2.5-flash-image", "gpt-image-2", "sora-2"], ["gemini-2.5-flash-image", "veo", PRO]
UNION = {"gemini-2.5-flash-image", "gpt-image-2", "veo", PRO}  # sora-2 has no price


@dataclass
class Offer:
    """A gateway whose pool has one key of each of two accounts with different models."""

    rig: Rig
    little: str
    large: str


@pytest.fixture(scope="module")
def offer(impatient: Rig) -> Iterator[Offer]:
    here, secrets, made = impatient, [], []
    for models in (LITTLE, LARGE):
        account = new_account()
        here.sandbox.account(account, models=models)
        secrets.append(new_secret(account))
        made.append(here.gateway.upstream_key(secrets[-1], account=account)["id"])
    here.gateway.call("POST", "/upstream-keys/first/disable")
    eventually(lambda: ids(here.client.get("/v1/models")) == UNION)
    yield Offer(here, *secrets)
    here.gateway.call("POST", "/upstream-keys/first/enable")
    for key in made:
        here.gateway.call("DELETE", f"/upstream-keys/{key}?force=true")


def ids(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    listed = [model["id"] for model in answer.json()["data"]]
    assert len(listed) == len(set(listed))
    return set(listed)


def test_the_list_is_the_union_without_aliases_and_unpriced_models(offer: Offer) -> None:
    answer = offer.rig.client.get("/v1/models")
    assert ids(answer) == UNION
    assert answer.headers["x-cache"] in ("hit", "miss")
    assert int(answer.headers["age"]) >= 0


@pytest.mark.parametrize(
    ("team", "key", "seen"),
    [
        (None, None, UNION),
        ([MODEL, "veo"], None, {MODEL, "veo"}),
        (None, ["veo"], {"veo"}),
        ([MODEL, "veo"], ["veo", "gpt-image-2"], {"veo"}),
        ([MODEL], ["veo"], set()),
        (None, ["sora-2", "unheard-of"], set()),
    ],
)
def test_the_list_is_narrowed_to_the_caller(
    offer: Offer, team: list[str] | None, key: list[str] | None, seen: set[str]
) -> None:
    here = offer.rig
    secret = here.gateway.key(here.new_team(allowed_models=team), allowed_models=key)
    with here.caller(secret) as client:
        assert ids(client.get("/v1/models")) == seen
        for model in UNION:
            answer = client.get(f"/v1/models/{model}")
            if model in seen:
                assert answer.json()["id"] == model
            else:
                error_of(answer, 404, "not_found_error", "model_not_found")


@pytest.mark.parametrize(
    ("name", "model"), [("nano-banana", MODEL), ("nano-banana-pro", PRO), ("veo", "veo")]
)
def test_one_model_by_id_or_alias(offer: Offer, name: str, model: str) -> None:
    answer = offer.rig.client.get(f"/v1/models/{name}")
    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "object", "category", "capabilities"}
    assert answer.json()["id"] == model


@pytest.mark.parametrize("name", ["sora-2", "nano-banana-2", "kling", "unheard-of", "NANO-BANANA", "a" * 300])
def test_no_other_model(offer: Offer, name: str) -> None:
    error_of(offer.rig.client.get(f"/v1/models/{name}"), 404, "not_found_error", "model_not_found")


def test_the_list_is_read_once_for_everyone(offer: Offer) -> None:
    here = offer.rig
    here.client.get("/v1/models")
    before = [here.sandbox.counters(secret)["requests"] for secret in (offer.little, offer.large)]
    for _ in range(5):
        assert here.client.get("/v1/models").headers["x-cache"] == "hit"
    assert [here.sandbox.counters(secret)["requests"] for secret in (offer.little, offer.large)] == before


def test_a_call_goes_to_an_account_that_has_its_model(offer: Offer) -> None:
    here = offer.rig
    cases = [
        (SYNC, "gpt-image-2", offer.little),
        (SYNC, "nano-banana-pro", offer.large),
        (VIDEOS, "veo", offer.large),
    ]
    for path, model, secret in cases:
        for _ in range(5):
            answer = here.client.post(path, json=order() | {"model": model})
            assert answer.status_code == 200, answer.text
            assert here.sent(answer)[0]["key_sha256"] == digest_of(secret)
            assert len(here.attempts(answer)) == 1


def test_a_model_nobody_offers_is_not_found(offer: Offer) -> None:
    here = offer.rig
    for path, model in ((SYNC, "nano-banana-2"), (VIDEOS, "kling")):
        answer = here.client.post(path, json=order() | {"model": model})
        error_of(answer, 404, "not_found_error", "model_not_offered")
        assert here.untouched(answer)


def test_failover_stays_within_the_accounts_that_have_the_model(offer: Offer) -> None:
    here = offer.rig
    here.sandbox.arm("status=429 retry_after=1", key=digest_of(offer.little), times=1)
    answer = here.client.post(SYNC, json=order() | {"model": "gpt-image-2"})
    error_of(answer, 429, "rate_limit_error", "upstream_throttled")
    assert len(here.sent(answer)) == 1
    assert here.held(answer).state == "released"
    eventually(lambda: here.client.post(SYNC, json=order() | {"model": "gpt-image-2"}).status_code == 200)


def test_a_new_account_s_models_are_there_soon(offer: Offer) -> None:
    here = offer.rig
    account = new_account()
    here.sandbox.account(account, models=["kling"])
    made = here.gateway.upstream_key(new_secret(account), account=account)
    try:
        eventually(lambda: ids(here.client.get("/v1/models")) == UNION | {"kling"})
        answer = here.client.post(VIDEOS, json=order() | {"model": "kling"})
        assert answer.status_code == 200
    finally:
        here.gateway.call("DELETE", f"/upstream-keys/{made['id']}?force=true")
    assert ids(here.client.get("/v1/models")) == UNION


def test_a_new_account_is_not_asked_for_models_it_does_not_have(offer: Offer) -> None:
    here = offer.rig
    account = new_account()
    here.sandbox.account(account, models=["kling"])
    made = here.gateway.upstream_key(new_secret(account), account=account, weight=1000)
    try:
        answer = here.client.post(SYNC, json=order() | {"model": "gpt-image-2"})
        assert answer.status_code == 200, answer.text
    finally:
        here.gateway.call("DELETE", f"/upstream-keys/{made['id']}?force=true")


def test_another_key_reads_the_list_when_one_is_refused(offer: Offer) -> None:
    here = offer.rig
    account = new_account()
    here.sandbox.account(account, models=["kling"])
    here.sandbox.arm("status=401", path="/v1/models", key=account, times=1)
    made = [here.gateway.upstream_key(new_secret(account), account=account) for _ in range(2)]
    try:
        eventually(lambda: ids(here.client.get("/v1/models")) == UNION | {"kling"})
    finally:
        for key in made:
            here.gateway.call("DELETE", f"/upstream-keys/{key['id']}?force=true")


def test_without_any_list_there_is_an_error(offer: Offer) -> None:
    here = offer.rig
    others = [
        key["id"] for key in here.gateway.call("GET", "/upstream-keys")["data"] if key["label"] != "first"
    ]
    for key in others:
        here.gateway.call("POST", f"/upstream-keys/{key}/disable")
    secret = new_secret(new_account())
    here.sandbox.arm_key(secret, "status=500", path="/v1/models")
    made = here.gateway.upstream_key(secret)
    try:
        answer = here.client.get("/v1/models")
        assert answer.status_code in (500, 502, 503)
        error_of(answer, answer.status_code, answer.json()["error"]["type"])
        error_of(here.client.get("/v1/models/veo"), answer.status_code, answer.json()["error"]["type"])
    finally:
        here.sandbox.disarm()
        here.gateway.call("DELETE", f"/upstream-keys/{made['id']}")
        for key in others:
            here.gateway.call("POST", f"/upstream-keys/{key}/enable")
