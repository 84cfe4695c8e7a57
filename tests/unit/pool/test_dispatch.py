"""The way to Pixapi: repeated only when it cannot cost twice, with another key when ours was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import GatewayError
from gateway.pool.dispatch import SENDS, Dispatched, Dispatcher, PaidCall
from gateway.pool.health import Look
from gateway.pool.pool import Pool, UpstreamKey
from gateway.upstream.client import Call, NotSentError, SentUnknownError
from gateway.upstream.outcomes import Outcome, Verdict
from tests.fakes.clock import FakeClock
from tests.fakes.key_table import KeyTable, pool_of
from tests.fakes.upstream import BUDGET, Answer, FakeUpstream, Reaction, in_turn, is_closed

ANSWER = Answer(200, b'{"data":[]}')
REFUSED, EMPTY, TOO_FAST = Answer(401), Answer(402), Answer(429, b"", 7.0)
REJECTED = Answer(400, b'{"error":{"code":"prompt_rejected","message":"no sk_key-0 please"}}')
NOT_SENT = NotSentError("no connection")
LOST, LATE = SentUnknownError("x"), SentUnknownError("x", timed_out=True)
NO_SPOOL = errors.overloaded("no room", "spool_full")
UNKNOWN: list[Reaction] = [
    LOST,
    LATE,
    Answer(502),
    Answer(503),
    Answer(504),
    Answer(500, b"<html>"),
    NO_SPOOL,
]


class Rig:
    """A dispatcher on a pool of keys `key-0`, `key-1`, … before a Pixapi of the test."""

    def __init__(self, table: KeyTable, pool: Pool, upstream: FakeUpstream, clock: FakeClock) -> None:
        self.table = table
        self.pool = pool
        self.upstream = upstream
        self.clock = clock
        self.dispatcher = Dispatcher(pool, upstream, clock, read_timeout=3.0)

    @classmethod
    async def of(cls, keys: int, *reactions: Reaction) -> Rig:
        table, clock = KeyTable(), FakeClock()
        for number in range(keys):
            table.add(f"key-{number}", account="a", max_in_flight=1)
        return cls(table, await pool_of(table, clock), FakeUpstream(in_turn(*reactions)), clock)

    async def pay(self, model: str = "m") -> Dispatched:
        found = await self.dispatcher.pay(msgspec.structs.replace(await paid(), model=model))
        await self.pool.close()
        return found

    def busy(self) -> int:
        """How many of the keys are leased."""
        free = []
        while True:
            try:
                free.append(self.pool.lease_paid(any_key))
            except GatewayError:
                break
        for lease in free:
            self.pool.release(lease)
        return len(self.pool.keys) - len(free)


def any_key(_: UpstreamKey) -> bool:
    return True


async def paid(content: bytes = b"{}") -> PaidCall:
    body = BUDGET.body()
    await body.write(content)
    return PaidCall("/v1/images/generations", body, b"application/json", b"*/*", "req_1", 590.0, any_key)


async def test_an_answer_is_passed_on_with_its_record() -> None:
    rig = await Rig.of(1, ANSWER)
    found = await rig.pay()
    assert (found.verdict, found.error) == (Verdict.ANSWERED, None)
    assert found.reply is not None
    assert found.reply.body.read_small() == ANSWER.body
    assert found.key is rig.pool.keys[0]
    (attempt,) = found.attempts
    assert (attempt.upstream_key, attempt.outcome, attempt.status) == ("key-0", "answered", 200)
    (call,) = rig.upstream.calls
    assert (call.method, call.path, call.timeout) == ("POST", "/v1/images/generations", 590.0)
    headers = dict(call.headers)
    assert headers[b"authorization"] == b"Bearer sk_key-0"
    assert (headers[b"content-length"], headers[b"x-request-id"]) == (b"2", b"req_1")
    assert rig.busy() == 0


@pytest.mark.parametrize("reaction", UNKNOWN)
async def test_what_may_have_been_executed_is_never_repeated(reaction: Reaction) -> None:
    rig = await Rig.of(3, reaction)
    found = await rig.pay()
    assert (found.verdict, found.reply, len(found.attempts)) == (Verdict.UNKNOWN, None, 1)
    assert found.error is not None
    assert (found.error.type, found.error.retry) == ("upstream_outcome_unknown", False)
    assert found.error.status == (504 if reaction is LATE else 502)
    assert rig.busy() == 0


async def test_a_refusal_of_the_request_is_passed_on_at_once_without_our_key() -> None:
    rig = await Rig.of(1, REJECTED)
    found = await rig.pay()
    assert (found.verdict, len(found.attempts)) == (Verdict.REJECTED, 1)
    assert found.error is not None
    assert (found.error.status, found.error.reason) == (400, "prompt_rejected")
    assert found.error.message == "no [redacted] please"
    assert rig.busy() == 0


@pytest.mark.parametrize("keys", [1, 2])
async def test_what_was_never_sent_is_tried_once_more(keys: int) -> None:
    rig = await Rig.of(keys, NOT_SENT, ANSWER)
    found = await rig.pay()
    assert (found.verdict, found.error) == (Verdict.ANSWERED, None)
    assert [attempt.outcome for attempt in found.attempts] == ["not_sent", "answered"]
    assert [attempt.status for attempt in found.attempts] == [None, 200]


async def test_what_cannot_be_sent_twice_is_given_up() -> None:
    rig = await Rig.of(3, NOT_SENT, NOT_SENT)
    found = await rig.pay()
    assert (found.verdict, len(found.attempts), rig.busy()) == (Verdict.NOT_SENT, 2, 0)
    assert found.error is not None
    assert (found.error.status, found.error.reason, found.error.retry) == (503, "upstream_unreachable", True)


@pytest.mark.parametrize(
    "reactions",
    [
        [NOT_SENT, REFUSED, ANSWER],
        [REFUSED, NOT_SENT, ANSWER],
        [EMPTY, NOT_SENT, ANSWER],
        [TOO_FAST, NOT_SENT, ANSWER],
    ],
)
async def test_a_lost_connection_and_a_refused_key_have_a_repeat_each(reactions: list[Reaction]) -> None:
    rig = await Rig.of(2, *reactions)
    found = await rig.pay()
    assert (found.verdict, found.error, len(found.attempts)) == (Verdict.ANSWERED, None, 3)


@pytest.mark.parametrize(
    ("reactions", "reason"),
    [
        ([NOT_SENT, REFUSED, NOT_SENT, ANSWER], "upstream_unreachable"),
        ([NOT_SENT, REFUSED, REFUSED, ANSWER], "upstream_key_refused"),
        ([TOO_FAST, NOT_SENT, TOO_FAST, ANSWER], "upstream_throttled"),
    ],
)
async def test_neither_is_repeated_a_second_time(reactions: list[Reaction], reason: str) -> None:
    rig = await Rig.of(4, *reactions)
    found = await rig.pay()
    assert (len(found.attempts), len(rig.upstream.calls)) == (3, 3)
    assert found.error is not None
    assert (found.error.reason, found.error.retry) == (reason, True)


@pytest.mark.parametrize("refusal", [REFUSED, EMPTY, TOO_FAST])
async def test_a_refused_key_is_replaced_by_another(refusal: Answer) -> None:
    rig = await Rig.of(2, refusal, ANSWER)
    found = await rig.pay()
    assert (found.verdict, found.error) == (Verdict.ANSWERED, None)
    first, second = rig.upstream.secrets
    assert first != second
    assert found.key is not None
    assert found.key.secret == second
    assert len(rig.upstream.calls) == 2


@pytest.mark.parametrize(
    ("refusal", "status", "reason", "wait"),
    [
        (REFUSED, 503, "upstream_key_refused", "5"),
        (EMPTY, 503, "upstream_out_of_credits", "5"),
        (TOO_FAST, 429, "upstream_throttled", "7"),
    ],
)
@pytest.mark.parametrize("keys", [1, 3])
async def test_when_no_other_key_can_serve_the_caller_hears_why(
    refusal: Answer, status: int, reason: str, wait: str, keys: int
) -> None:
    rig = await Rig.of(keys, refusal, refusal)
    found = await rig.pay()
    assert len(found.attempts) == min(keys, 2)
    assert found.error is not None
    assert (found.error.status, found.error.reason, found.error.retry) == (status, reason, True)
    assert found.error.headers["retry-after"] == wait


@pytest.mark.parametrize(("refusal", "status", "wait"), [(EMPTY, 429, "20"), (TOO_FAST, 429, "7")])
async def test_when_another_key_will_be_ready_soon_the_caller_hears_that(
    refusal: Answer, status: int, wait: str
) -> None:
    rig = await Rig.of(2, refusal)
    slow = rig.pool.lease_paid(lambda key: key.label == "key-1")
    rig.pool.report(slow, Outcome(Verdict.THROTTLED, retry_after=20.0))
    found = await rig.pay()
    assert (found.verdict.concerns_our_key, len(found.attempts)) == (True, 1)
    assert found.error is not None
    assert (found.error.status, found.error.headers["retry-after"]) == (status, wait)


async def test_without_any_key_nothing_is_sent() -> None:
    rig = await Rig.of(0)
    found = await rig.pay()
    assert (found.verdict, found.attempts, rig.upstream.calls) == (Verdict.NOT_SENT, [], [])
    assert found.error is not None
    assert found.error.reason == "no_upstream_key"


REACTIONS = st.sampled_from([ANSWER, REFUSED, EMPTY, TOO_FAST, REJECTED, NOT_SENT, *UNKNOWN])


@given(st.integers(1, 4), st.lists(REACTIONS, min_size=5, max_size=5))
def test_nothing_follows_what_may_have_been_executed(keys: int, reactions: list[Reaction]) -> None:
    async def run() -> None:
        rig = await Rig.of(keys, *reactions)
        found = await rig.pay()
        outcomes = [Verdict(attempt.outcome) for attempt in found.attempts]
        assert 1 <= len(outcomes) == len(rig.upstream.calls) <= SENDS == 3
        assert outcomes.count(Verdict.NOT_SENT) <= 2
        assert sum(verdict.concerns_our_key for verdict in outcomes) <= 2
        assert not any(verdict.may_have_executed or verdict is Verdict.REJECTED for verdict in outcomes[:-1])
        assert found.verdict is outcomes[-1]
        assert (found.reply is not None) is (found.verdict is Verdict.ANSWERED)
        assert (found.error is not None) is (found.verdict is not Verdict.ANSWERED)
        unread = [body for body in rig.upstream.bodies if not is_closed(body)]
        assert unread == ([] if found.reply is None else [found.reply.body])

    asyncio.run(run())


async def test_a_cancelled_call_gives_its_key_back() -> None:
    rig = await Rig.of(1, ANSWER)
    rig.upstream.gate.clear()
    task = asyncio.create_task(rig.pay())
    while not rig.upstream.calls:
        await asyncio.sleep(0)
    assert rig.busy() == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.busy() == 0


# Reads -----------------------------------------------------------------------------------------------------


async def test_a_read_goes_through_a_key_of_the_account() -> None:
    rig = await Rig.of(2, ANSWER)
    reply = await rig.dispatcher.read("/v1/tasks/t", "a", "req_1", preferred=UUID(int=2))
    assert reply.body.read_small() == ANSWER.body
    (call,) = rig.upstream.calls
    assert (call.method, call.path, call.timeout, call.body) == ("GET", "/v1/tasks/t", 3.0, None)
    assert rig.upstream.secrets == ["sk_key-1"]


@pytest.mark.parametrize(
    ("reaction", "status", "reason"),
    [
        (Answer(404, b'{"error":{"code":404,"message":"m"}}'), 404, "rejected_by_pixapi"),
        (Answer(404), 502, "upstream_error"),
        (Answer(302), 502, "upstream_redirect"),
        (Answer(500), 502, "upstream_outcome_unknown"),
        (REFUSED, 503, "upstream_key_refused"),
        (TOO_FAST, 429, "upstream_throttled"),
        (NOT_SENT, 503, "upstream_unreachable"),
        (LATE, 504, "upstream_outcome_unknown"),
    ],
)
async def test_a_read_without_an_answer_is_an_error(reaction: Reaction, status: int, reason: str) -> None:
    rig = await Rig.of(1, reaction)
    with pytest.raises(GatewayError) as caught:
        await rig.dispatcher.read("/v1/models", "a", "req_1")
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert all(is_closed(body) for body in rig.upstream.bodies)
    await rig.pool.close()


@pytest.mark.parametrize(
    ("first", "sends", "calls"),
    [
        (REFUSED, 1, 1),
        (REFUSED, 2, 2),
        (TOO_FAST, 2, 2),
        (NOT_SENT, 2, 2),
        (Answer(404), 2, 1),
        (Answer(500), 2, 2),
        (LOST, 2, 2),
        (LOST, 1, 1),
    ],
)
async def test_a_read_of_two_sends_is_repeated_where_that_may_help(
    first: Reaction, sends: int, calls: int
) -> None:
    rig = await Rig.of(2, first, ANSWER)
    try:
        reply = await rig.dispatcher.read("/v1/models", "a", "req_1", sends=sends)
        assert reply.body.read_small() == ANSWER.body
        assert calls == 2
    except GatewayError:
        assert calls == 1
    assert len(rig.upstream.calls) == calls
    assert len(set(rig.upstream.secrets)) == calls
    await rig.pool.close()


async def test_a_repeated_read_has_what_is_left_of_the_time_of_one() -> None:
    rig = await Rig.of(2)

    def slow(seconds: float) -> Callable[[Call], Reaction]:
        def react(call: Call) -> Reaction:
            rig.clock.forward(seconds)
            return LOST

        return react

    rig.upstream.react = slow(1.0)
    with pytest.raises(GatewayError):
        await rig.dispatcher.read("/v1/models", "a", "req_1", sends=2)
    assert [call.timeout for call in rig.upstream.calls] == [3.0, 2.0]
    for _ in range(10):  # fills the budget again
        with pytest.raises(GatewayError):
            await rig.dispatcher.read("/v1/models", "a", "req_1")
    rig.upstream.calls.clear()
    rig.upstream.react = slow(2.5)
    with pytest.raises(GatewayError):
        await rig.dispatcher.read("/v1/models", "a", "req_1", sends=2)
    assert [call.timeout for call in rig.upstream.calls] == [3.0]


async def test_one_read_in_ten_is_repeated_when_all_fail() -> None:
    rig = await Rig.of(2)
    rig.upstream.react = lambda _: LOST
    for _ in range(100):
        with pytest.raises(GatewayError):
            await rig.dispatcher.read("/v1/models", "a", "req_1", sends=2)
    assert 109 <= len(rig.upstream.calls) <= 113


# Looks at one key ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reaction", "look"),
    [
        (Answer(200, b'{"object":"list","data":[]}'), Look.ACCEPTED),
        (Answer(200, b"<html>welcome</html>"), Look.UNDECIDED),
        (Answer(200, b'{"data":"none"}'), Look.UNDECIDED),
        (Answer(402, b'{"error":{"code":"insufficient_credits","message":"m"}}'), Look.ACCEPTED),
        (Answer(401), Look.REFUSED),
        (Answer(403, b'{"error":{"code":"key_disabled","message":"m"}}'), Look.REFUSED),
        (Answer(403, b'{"error":{"code":"forbidden","message":"m"}}'), Look.UNDECIDED),
        (Answer(429), Look.UNDECIDED),
        (Answer(500), Look.UNDECIDED),
        (LATE, Look.UNDECIDED),
        (NOT_SENT, Look.UNDECIDED),
    ],
)
async def test_a_look_asks_the_free_list_with_this_very_key_also_while_it_rests(
    reaction: Reaction, look: Look
) -> None:
    rig = await Rig.of(2, REFUSED, reaction)
    with pytest.raises(GatewayError):
        await rig.dispatcher.read("/v1/models", "a", "req_1", UUID(int=2))
    key = rig.pool.keys[1]
    before = rig.pool.standing()
    assert await rig.dispatcher.look(key, "req_2") is look
    call = rig.upstream.calls[1]
    assert (call.method, call.path, call.body) == ("GET", "/v1/models", None)
    assert rig.upstream.secrets == ["sk_key-1"] * 2
    assert rig.pool.standing() == before
    assert all(is_closed(body) for body in rig.upstream.bodies)
    await rig.pool.close()


# The breaker -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [LOST, LATE, Answer(502), Answer(500, b"<html>"), Answer(504)])
async def test_a_key_that_fails_five_times_in_a_row_is_left_for_another(failure: Reaction) -> None:
    rig = await Rig.of(2)
    rig.upstream.react = lambda _: ANSWER
    broken = "sk_key-0"
    rig.upstream.react = lambda call: failure if rig.upstream.secrets[-1] == broken else ANSWER
    for _ in range(60):
        await rig.pay()
    assert rig.upstream.secrets.count(broken) == 5
    assert rig.busy() == 1  # it rests


async def test_the_last_key_stays_in_use_however_it_fails() -> None:
    rig = await Rig.of(2)
    rig.upstream.react = lambda _: LOST
    for _ in range(40):
        assert (await rig.pay()).verdict is Verdict.UNKNOWN
    assert len(set(rig.upstream.secrets[-20:])) == 1
    last = rig.upstream.secrets[-1]
    rig.upstream.react = lambda _: REFUSED if rig.upstream.secrets[-1] == last else ANSWER
    found = await rig.pay()  # it is refused, which makes the other one the last
    assert [attempt.outcome for attempt in found.attempts] == ["key_refused", "answered"]
    assert (await rig.pay()).verdict is Verdict.ANSWERED


async def test_one_broken_model_takes_no_key_out() -> None:
    rig = await Rig.of(2)
    rig.upstream.react = lambda _: Answer(500, b'{"error":{"code":500,"message":"model broke"}}')
    for _ in range(30):
        await rig.pay(model="broken")
    assert {secret: rig.upstream.secrets.count(secret) > 5 for secret in rig.upstream.secrets} == {
        "sk_key-0": True,
        "sk_key-1": True,
    }
    assert rig.busy() == 0
    for model in ("broken", "other", "third"):
        await rig.pay(model=model)
        await rig.pay(model=model)
    assert rig.busy() == 1


# Trials of empty accounts ----------------------------------------------------------------------------------


async def test_after_its_rest_one_call_tries_an_empty_account_and_the_others_wait() -> None:
    rig = await Rig.of(1, EMPTY, ANSWER, ANSWER)
    assert (await rig.pay()).verdict is Verdict.KEY_EXHAUSTED
    rig.clock.forward(301)
    rig.upstream.gate.clear()
    trial = asyncio.create_task(rig.pay())
    while len(rig.upstream.calls) < 2:
        await asyncio.sleep(0)
    error = (await rig.pay()).error
    assert error is not None
    assert (error.status, error.reason) == (503, "upstream_keys_resting")
    rig.upstream.gate.set()
    assert (await trial).verdict is Verdict.ANSWERED
    assert (await rig.pay()).verdict is Verdict.ANSWERED


async def test_a_trial_that_another_process_makes_is_not_made_here() -> None:
    rig = await Rig.of(2, EMPTY, ANSWER, ANSWER)
    rig.table.trials = False
    assert (await rig.pay()).verdict is Verdict.ANSWERED
    rig.clock.forward(301)
    empty = rig.upstream.secrets[0]
    assert (await rig.pay()).verdict is Verdict.ANSWERED
    assert rig.upstream.secrets[-1] != empty


async def test_a_trial_that_is_cancelled_makes_room_for_another() -> None:
    rig = await Rig.of(1, EMPTY, ANSWER, ANSWER)
    await rig.pay()
    rig.clock.forward(301)
    rig.upstream.gate.clear()
    trial = asyncio.create_task(rig.pay())
    while len(rig.upstream.calls) < 2:
        await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    rig.upstream.gate.set()
    assert (await rig.pay()).verdict is Verdict.ANSWERED


async def test_a_poll_limit_stops_reads_and_not_paid_calls() -> None:
    rig = await Rig.of(1, TOO_FAST, ANSWER)
    with pytest.raises(GatewayError):
        await rig.dispatcher.read("/v1/models", "a", "req_1")
    with pytest.raises(GatewayError, match="slow down"):
        await rig.dispatcher.read("/v1/models", "a", "req_1")
    assert len(rig.upstream.calls) == 1
    assert (await rig.pay()).verdict is Verdict.ANSWERED


async def test_after_an_empty_account_another_account_is_tried_before_its_sibling_keys() -> None:
    for _ in range(10):
        table, clock = KeyTable(), FakeClock()
        for number, account in enumerate("aaab"):
            table.add(f"key-{number}", account=account)
        rig = Rig(table, await pool_of(table, clock), FakeUpstream(in_turn(EMPTY, ANSWER)), clock)
        accounts = {key.id: key.account for key in rig.pool.keys}
        found = await rig.pay()
        first, second = (accounts[attempt.upstream_key_id] for attempt in found.attempts)
        assert first != second
        assert found.verdict is Verdict.ANSWERED


async def test_a_sibling_of_an_empty_account_is_better_than_nothing() -> None:
    rig = await Rig.of(2, EMPTY, ANSWER)
    assert (await rig.pay()).verdict is Verdict.ANSWERED
