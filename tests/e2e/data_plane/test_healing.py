"""Keys that heal on a served gateway: refused ones are checked for free, failing ones are left, no one team can break
them, and a draining one finishes its tasks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.data_plane.pool import Key, Pool
from tests.e2e.data_plane.rig import ASYNC, SYNC, Rig, digest_of, ended, order
from tests.e2e.harness import eventually


@pytest.fixture
def here(impatient: Rig) -> Rig:
    return impatient


def state(rig: Rig, key: Key) -> dict[str, Any]:
    found: dict[str, Any] = rig.gateway.call("GET", f"/upstream-keys/{key.id}")
    return found


def lists_read(rig: Rig, key: Key) -> int:
    """How often the model list was asked for with the key."""
    digest = digest_of(key.secret)
    journal = rig.sandbox.journal(1000)
    return sum(one["path"] == "/v1/models" and one["key_sha256"] == digest for one in journal)


def audited(rig: Rig, key: Key) -> list[str]:
    """What the gateway itself changed about the key, oldest first."""
    entries = rig.gateway.call("GET", f"/audit?subject_type=upstream-key&subject_id={key.id}")["data"]
    return [one["action"] for one in reversed(entries) if one["actor"] == "gateway"]


def pass_by(rig: Rig, key: Key, seconds: int) -> None:
    """Makes the key's rests and its next check lie that much earlier; the database's clock cannot be moved."""
    rig.database.execute(
        b"UPDATE upstream_keys SET paid_rests_until = paid_rests_until - make_interval(secs => %(by)s),"
        b" reads_rest_until = reads_rest_until - make_interval(secs => %(by)s),"
        b" next_check_at = next_check_at - make_interval(secs => %(by)s) WHERE id = %(id)s",
        {"by": seconds, "id": key.id},
    )


def pay(rig: Rig, prompt: str = "A cup", **fields: Any) -> httpx.Response:
    return rig.client.post(SYNC, json=order(prompt, **fields))


def test_a_revoked_key_is_off_until_pixapi_takes_it_again(here: Rig, pool: Pool) -> None:
    bad, good = pool.add(weight=1000), pool.add()
    here.sandbox.control.post("/sandbox/keys/revoke", json={"key": bad.secret}).raise_for_status()
    eventually(lambda: pay(here).status_code == 200 and pool.counts(bad) == [1])
    off = eventually(lambda: found if (found := state(here, bad))["state"] == "refused" else None)
    assert (off["rest_reason"], off["state_reason"]) == ("refused", "refused by Pixapi, its model list too")
    assert off["next_check_at"] is not None
    checked = lists_read(here, bad)
    for _ in range(5):
        assert pay(here).status_code == 200
    assert (pool.counts(bad, good)[0], lists_read(here, bad)) == (1, checked)

    here.sandbox.control.post("/sandbox/keys/restore", json={"key": bad.secret}).raise_for_status()
    pass_by(here, bad, 301)
    eventually(lambda: state(here, bad)["state"] == "active")
    assert lists_read(here, bad) == checked + 1
    eventually(lambda: pay(here).status_code == 200 and pool.counts(bad) > [1])
    assert audited(here, bad) == ["upstream-key.rest", "upstream-key.refuse", "upstream-key.recover"]


def test_a_key_refused_by_mistake_is_back_after_its_minute(here: Rig, pool: Pool) -> None:
    only = pool.add()
    here.sandbox.arm("status=401", times=1)
    assert pay(here).status_code == 503
    resting = eventually(lambda: found if (found := state(here, only))["rest_reason"] else None)
    assert (resting["state"], resting["rest_reason"]) == ("active", "refused")
    assert resting["paid_rests_until"] is not None
    assert resting["reads_rest_until"] is not None
    eventually(lambda: lists_read(here, only) > 0)
    assert pay(here).status_code == 503
    assert pool.counts(only) == [1]
    pass_by(here, only, 61)
    eventually(lambda: pay(here).status_code == 200)
    well = state(here, only)
    assert (well["rest_reason"], well["paid_rests_until"], well["next_check_at"]) == (None, None, None)


def test_a_key_that_fails_in_a_row_is_left_and_comes_back_by_the_free_list(here: Rig, pool: Pool) -> None:
    bad, good = pool.add(weight=1000), pool.add()
    here.sandbox.arm_key(bad.secret, "status=502 shape=html")
    eventually(lambda: pay(here) and pool.counts(bad) == [5], every=0)
    opened = eventually(lambda: found if (found := state(here, bad))["rest_reason"] else None)
    assert (opened["state"], opened["rest_reason"]) == ("active", "failing")
    assert opened["paid_rests_until"] is not None
    assert opened["reads_rest_until"] is None
    before = pool.counts(good)[0]
    for _ in range(5):
        assert pay(here).status_code == 200
    assert pool.counts(bad, good) == [5, before + 5]

    here.sandbox.disarm()
    pass_by(here, bad, 31)
    eventually(lambda: state(here, bad)["rest_reason"] is None)
    assert lists_read(here, bad) >= 1
    assert pool.counts(bad) == [5]  # looked at, not tried
    eventually(lambda: pay(here).status_code == 200 and pool.counts(bad) > [5])
    assert audited(here, bad) == ["upstream-key.rest", "upstream-key.recover"]


@pytest.mark.parametrize(
    "fault", ["status=400 shape=string", "status=403 shape=string", "status=500 shape=string"]
)
def test_one_team_s_refused_prompts_and_one_broken_model_take_no_key_out(
    here: Rig, pool: Pool, fault: str
) -> None:
    keys = [pool.add(), pool.add()]
    eventually(
        lambda: pay(here).status_code == 200 and min(pool.counts(*keys)) >= 1
    )  # what both offer is known
    before = pool.counts(*keys)
    for _ in range(16):
        assert pay(here, f"[fault:{fault}]").status_code >= 400
    assert [state(here, key)["rest_reason"] for key in keys] == [None, None]
    assert min(now - then for now, then in zip(pool.counts(*keys), before, strict=True)) >= 3
    assert [audited(here, key) for key in keys] == [[], []]


def test_the_last_key_stays_in_use_however_it_fails(here: Rig, pool: Pool) -> None:
    only = pool.add()
    for _ in range(8):
        assert pay(here, "[fault:reset]").status_code == 502
    assert pay(here).status_code == 200
    assert pool.counts(only) == [9]


def test_a_draining_key_finishes_its_tasks_and_gets_no_new_calls(here: Rig, pool: Pool) -> None:
    old = pool.add()
    answer = here.client.post(ASYNC, json=order("[fault:duration=1]"))
    new = pool.add()
    pool.turn(old, "drain")
    for _ in range(3):
        assert pay(here).status_code == 200
    assert ended(here, answer, "settled").task_id == answer.json()["id"]  # nobody has polled it
    assert pool.counts(old, new) == [1, 3]
    assert pool.counts(old, what="reads")[0] >= 1
