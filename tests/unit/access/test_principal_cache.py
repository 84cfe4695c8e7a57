"""Principals kept for a fixed time, in bounded number, and forgotten by key and by team."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.principal_cache import Entry, PrincipalCache
from tests.fakes.principals import TEAM_ID, principal

TTL = 10.0
BETA = UUID("018e0000-0000-7000-8000-000000000002")


def known(key_id: str = "0123456789", asked_at: float = 0.0, team_id: UUID = TEAM_ID) -> Entry:
    return Entry(asked_at, key_id, principal(key_id=key_id, team_id=team_id))


def unknown(key_id: str = "0123456789", asked_at: float = 0.0) -> Entry:
    return Entry(asked_at, key_id, None)


def filled(*entries: Entry, known: int = 4, unknown: int = 3) -> PrincipalCache:
    """A cache of these entries, each under its key's id, put when it was asked for."""
    cache = PrincipalCache(TTL, known, unknown)
    for entry in entries:
        cache.put(entry.key_id.encode(), entry, entry.asked_at)
    return cache


def kept(cache: PrincipalCache, *key_ids: str, now: float = 0.0) -> str:
    """Those of these ids that have an entry."""
    return "".join(key_id for key_id in key_ids if cache.get(key_id.encode(), now) is not None)


@pytest.mark.parametrize("entry", [known("a", 5.0), unknown("a", 5.0)])
def test_an_entry_s_life_is_counted_from_the_question_and_does_not_slide(entry: Entry) -> None:
    cache = PrincipalCache(TTL)
    cache.put(b"a", entry, 8.0)
    for now in (8.0, 10.0, 14.9):
        assert cache.get(b"a", now) is entry
    assert cache.get(b"a", 15.0) is None


@pytest.mark.parametrize("entry", [known("a", 5.0), unknown("a", 5.0)])
def test_who_does_not_hear_of_changes_keeps_it_for_five_seconds(entry: Entry) -> None:
    cache = filled(entry)
    assert cache.get(b"a", 9.999, hearing=False) is entry
    assert cache.get(b"a", 10.0, hearing=False) is None
    assert cache.get(b"a", 10.0) is entry
    short = PrincipalCache(2.0)
    short.put(b"a", entry, 5.0)
    assert short.get(b"a", 7.0, hearing=False) is None


def test_nothing_is_kept_for_no_time() -> None:
    cache = PrincipalCache(0.0)
    cache.put(b"a", known("a"), 0.0)
    assert cache.get(b"a", 0.0) is None
    assert len(cache) == 0


def test_the_oldest_go_first() -> None:
    cache = filled(known("a"), known("b"), known("c"), known("d"))
    cache.put(b"a", known("a"), 0.0)  # read again: the youngest now
    cache.put(b"e", known("e"), 0.0)
    assert kept(cache, "a", "b", "c", "d", "e") == "acde"


def test_made_up_keys_push_out_made_up_keys_only() -> None:
    cache = filled(known("a"), known("b"), *(unknown(f"{number}") for number in range(1000)))
    assert len(cache) == 5
    assert kept(cache, "a", "b", "996", "997", "998", "999") == "ab997998999"


def test_what_has_ended_takes_no_room() -> None:
    cache = filled(known("a", 0.0), known("b", 1.0), known("c", 11.0))
    assert len(cache) == 1
    assert kept(cache, "a", "b", "c", now=11.0) == "c"


def test_a_key_that_comes_to_be_is_no_longer_unknown_and_the_other_way() -> None:
    cache = filled(unknown("a"), known("a"))
    assert len(cache) == 1
    found = cache.get(b"a", 0.0)
    assert found is not None
    assert found.principal is not None
    cache.put(b"a", unknown("a"), 0.0)
    assert len(cache) == 1
    assert cache.get(b"a", 0.0) == unknown("a")


def test_a_key_is_forgotten_with_all_that_name_it() -> None:
    cache = filled(known("a"), known("b"))
    cache.put(b"made up", unknown("a"), 0.0)
    cache.forget_key("a")
    assert cache.get(b"made up", 0.0) is None
    assert kept(cache, "a", "b") == "b"
    assert len(cache) == 1


def test_a_team_is_forgotten_and_no_other() -> None:
    cache = filled(known("a"), known("b", team_id=BETA), known("c"), unknown("d"))
    cache.forget_team(str(TEAM_ID))
    assert kept(cache, "a", "b", "c", "d") == "bd"
    cache.forget_team("no team")
    assert kept(cache, "b", "d") == "bd"


def test_everything_is_forgotten() -> None:
    cache = filled(known("a"), unknown("b"))
    cache.clear()
    assert len(cache) == 0


def test_a_full_cache_forgets_without_a_walk() -> None:
    cache = PrincipalCache(TTL, known=100_000)
    for number in range(20_000):
        cache.put(b"%d" % number, known(f"{number}", team_id=BETA), 0.0)
    cache.put(b"a", known("a"), 0.0)
    spent = []
    for _ in range(5):
        began = time.thread_time()
        cache.forget_team("no team")
        cache.forget_key("no key")
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.0005
    cache.forget_team(str(TEAM_ID))
    assert len(cache) == 20_000


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put unknown", "forget key", "forget team"]),
        st.sampled_from("abcdefgh"),
        st.sampled_from([TEAM_ID, BETA]),
        st.floats(0, 4),
    ),
    max_size=60,
)


@given(STEPS)
def test_never_more_than_allowed_never_too_old_never_forgotten(
    steps: list[tuple[str, str, UUID, float]],
) -> None:
    cache, model, now = PrincipalCache(TTL, 4, 3), dict[bytes, Entry](), 0.0
    for step, key_id, team_id, seconds in steps:
        now += seconds
        if step.startswith("put"):
            entry = unknown(key_id, now) if step == "put unknown" else known(key_id, now, team_id)
            cache.put(key_id.encode(), entry, now)
            model[key_id.encode()] = entry
        elif step == "forget key":
            cache.forget_key(key_id)
            model.pop(key_id.encode(), None)
        else:
            cache.forget_team(str(team_id))
            model = {
                digest: entry
                for digest, entry in model.items()
                if entry.principal is None or entry.principal.team_id != team_id
            }
        assert len(cache) <= 7
        for digest in (letter.encode() for letter in "abcdefgh"):
            entry_now, expected = cache.get(digest, now), model.get(digest)
            assert entry_now is None or (entry_now is expected and now - entry_now.asked_at < TTL)
    last = steps[-1:]
    assert not last or not last[0][0].startswith("put") or cache.get(last[0][1].encode(), now) is not None
