"""An answer too large for Redis is there for a repeat at another process, as long as its call can be joined."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.data_plane.rig import SYNC, Rig, error_of, order, rig
from tests.e2e.harness import eventually

FOLDER = "pixapi-gateway-answers"
MEGABYTE = 1_000_000
RETRY = {"x-stainless-retry-count": "1"}
PATH = "SELECT body_path FROM idempotency_records WHERE hold_id = %s AND delivered_at IS NOT NULL"
EXPIRES = "UPDATE idempotency_records SET expires_at = now() WHERE hold_id = %s RETURNING 1"


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str, spool: Path) -> Iterator[Rig]:
    settings = {"GATEWAY_SERVER__SPOOL_DIR": str(spool), "GATEWAY_SERVER__SPOOL_MAX_BYTES": "40000000"}
    with rig(module_database_url, redis_url, settings) as found:
        yield found


@pytest.fixture(scope="module")
def other(here: Rig) -> Iterator[httpx.Client]:
    """A client of the same key at a second process."""
    with harness.beside(here.gateway.environment) as process, here.caller(here.key) as client:
        client.base_url = httpx.URL(process.base)
        eventually(lambda: client.post(SYNC, json=order()).is_success)
        yield client


def prompt(megabytes: float) -> str:
    return f"Cup {uuid.uuid4().hex} [fault:big={megabytes}]"


def executions(rig: Rig, text: str) -> int:
    return sum(text in (entry["body_text"] or "") for entry in rig.sandbox.journal(1000))


@pytest.mark.parametrize("megabytes", [0.7, 1.5, 3, 9])
def test_a_retry_elsewhere_gets_it(here: Rig, other: httpx.Client, megabytes: float) -> None:
    text = prompt(megabytes)
    first = here.client.post(SYNC, json=order(text))
    assert len(first.content) > megabytes * MEGABYTE
    again = other.post(SYNC, json=order(text), headers=RETRY)
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert executions(here, text) == 1


def test_its_file_is_private_and_goes_with_its_record(here: Rig, spool: Path) -> None:
    first = here.client.post(SYNC, json=order(prompt(3)))
    hold = here.held(first).id
    path = spool / FOLDER / str(eventually(lambda: here.rows(PATH, hold))[0]["body_path"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == first.content
    assert here.rows(EXPIRES, hold)
    eventually(lambda: not path.exists())


def test_many_at_once_are_all_there_within_the_cap(here: Rig, other: httpx.Client, spool: Path) -> None:
    clear(here, spool)
    texts = [prompt(2) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        firsts = list(threads.map(lambda text: here.client.post(SYNC, json=order(text)), texts))
        agains = list(threads.map(lambda text: other.post(SYNC, json=order(text), headers=RETRY), texts))
    assert Counter(answer.status_code for answer in agains) == {200: 8}
    assert [answer.content for answer in agains] == [answer.content for answer in firsts]
    assert sum(file.stat().st_size for file in (spool / FOLDER).iterdir()) < 40_000_000


def test_without_room_it_is_not_kept_and_not_made_again(here: Rig, other: httpx.Client, spool: Path) -> None:
    clear(here, spool)
    full = spool / FOLDER / "full"
    full.write_bytes(bytes(1))
    try:
        with full.open("r+b") as file:
            file.truncate(35_000_000)  # more than is for answers of use for seconds
        text = eventually(lambda: unkept(here))  # once the folder is counted anew
        again = other.post(SYNC, json=order(text), headers=RETRY)
        error_of(again, 502, "upstream_outcome_unknown", "answer_not_kept")
        assert again.headers["x-should-retry"] == "false"
        keyed = {"idempotency-key": uuid.uuid4().hex}
        kept = here.client.post(SYNC, json=order(text), headers=keyed)
        assert other.post(SYNC, json=order(text), headers=keyed).content == kept.content
    finally:
        full.unlink()


def unkept(here: Rig) -> str | None:
    """The prompt of a new call, when its record says that the answer lies nowhere."""
    text = prompt(3)
    hold = here.held(here.client.post(SYNC, json=order(text))).id
    return text if eventually(lambda: here.rows(PATH, hold))[0]["body_path"] is None else None


def clear(here: Rig, spool: Path) -> None:
    """Lets the answers of other tests expire, those as well whose arrival is only being noted."""

    def is_clear() -> bool:
        here.rows(
            "UPDATE idempotency_records SET expires_at = now() WHERE delivered_at IS NOT NULL RETURNING 1"
        )
        return not list((spool / FOLDER).iterdir())

    eventually(is_clear, seconds=15, every=0.1)
