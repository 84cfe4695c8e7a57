"""The paid routes: sends the call, answers its hold, then answers the client.

The call is a task of its own, so it ends the same way whether its client waits or not. Its hold is answered before
the first byte of the answer: bound to its task, settled, released, or kept as unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.catalog.model_list import ModelList
from gateway.credits.amount import to_text
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, Ended, NewTask, SentVia
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatched, Dispatcher, PaidCall
from gateway.pool.pool import UpstreamKey
from gateway.proxy.arrival import when_arrived
from gateway.proxy.exchange import Exchange, Hold, RequestBody, exchange_of
from gateway.proxy.generation import Operation
from gateway.proxy.leaving import ClientLeftError, has_left
from gateway.proxy.relay import relay
from gateway.repeats.answer import Answer, failed, whole
from gateway.repeats.recent import Recent
from gateway.repeats.repeats import Repeats
from gateway.spool import SpooledBody
from gateway.tasks.status import first_state
from gateway.telemetry import Metrics
from gateway.upstream import answer_scanner
from gateway.upstream.answers import submitted
from gateway.upstream.client import Reply
from gateway.upstream.headers import toward_client
from gateway.upstream.outcomes import Verdict

LARGEST_SUBMIT = 1024 * 1024
Ending = Conclusion | NewTask  # of a hold, now or with its task


class Finished(msgspec.Struct):
    """How a call ended: a reply to pass on, or the error the client gets."""

    dispatched: Dispatched
    reply: Reply | None = None
    error: GatewayError | None = None
    task_id: str | None = None
    held: int | None = None  # micro-credits still held
    charged: int | None = None
    remaining: int | None = None
    executed: bool = True  # false when certainly nothing was
    unknown: bool = False

    @property
    def answer(self) -> Answer:
        """What a repeat of the call gets."""
        if self.reply is not None:
            content_type = self.reply.content_type or b"application/json"
            return Answer(self.reply.status, content_type, self.reply.body)
        return failed(self.error or errors.internal_error(), executed=self.executed, unknown=self.unknown)

    def discard(self) -> None:
        if self.reply is not None:
            self.reply.body.close()


class _UnderWay(msgspec.Struct, frozen=True):
    """One call; `kept` is where its answer is put for repeats, None when nothing can repeat it."""

    hold: Hold
    body: RequestBody
    operation: Operation
    kept: Recent | None


@dataclass(frozen=True, slots=True)
class Generations:
    """The endpoint of every paid route; time-outs in seconds, by whether Pixapi answers with a task."""

    dispatcher: Dispatcher
    ledger: Ledger
    models: ModelList
    metrics: Metrics
    repeats: Repeats
    sync_timeout: float
    submit_timeout: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        hold, body, operation, seat = exchange.hold, exchange.body, exchange.operation, exchange.seat
        if hold is None or body is None or operation is None or seat is None:
            raise errors.internal_error()
        if has_left(receive):
            raise ClientLeftError  # before anything was sent: the hold is released
        repeatable = hold.order.repeatable
        kept = None if repeatable is None else self.repeats.began(hold.id, repeatable)
        call = _UnderWay(hold, body, operation, kept)
        task = seat.start(self._run(call, self._sending(exchange, call)))
        hold.claimed = True
        try:
            await seat.over()
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(_discard)
                raise _interrupted() from None
        if task.cancelled():
            raise _interrupted()
        finished = task.result()
        _note(exchange, finished)
        reply, there = finished.reply, False
        if reply is None:
            exchange.when_failure_sent = partial(self._answered, scope, kept, finished, not has_left(receive))
            raise finished.error or errors.internal_error()
        try:
            headers = toward_client(reply.content_type, reply.body.size)
            there = await relay(receive, send, reply.status, headers, reply.body)
        finally:
            self._answered(scope, kept, finished, there)

    def _answered(self, scope: Scope, kept: Recent | None, finished: Finished, there: bool) -> None:
        """The answer is written, if the client was `there` to the last byte. Only for repeats without a key it matters
        whether it has arrived."""
        if kept is None:
            finished.discard()
        elif there and not kept.by_key:
            when_arrived(scope, partial(self.repeats.written, kept))
        else:
            self.repeats.written(kept, there)

    def _sending(self, exchange: Exchange, call: _UnderWay) -> PaidCall:
        model, operation, body = call.hold.model.id, call.operation, call.body

        def serves(key: UpstreamKey) -> bool:
            return self.models.lists(key.account, model)

        return PaidCall(
            path=operation.path,
            body=body.raw,
            content_type=body.content_type,
            accept=exchange.header(b"accept"),
            request_id=exchange.request_id,
            timeout=self.submit_timeout if operation.asynchronous else self.sync_timeout,
            serves=serves,
            model=model,
        )

    async def _run(self, call: _UnderWay, sending: PaidCall) -> Finished:
        """The call to its end, kept for whoever repeats it before its own client gets a byte."""
        kept, reply = call.kept, None
        try:
            dispatched = await self.dispatcher.pay(sending)
            reply = dispatched.reply
            for attempt in dispatched.attempts:
                self.metrics.upstream_attempts_by[(attempt.outcome,)].inc()
            finished, ending = await _judged(call, dispatched)
            await self._conclude(call, finished, ending)
        except BaseException:
            if reply is not None:
                reply.body.close()
            await self._give_up(call)
            raise
        finally:
            call.body.raw.close()
        if kept is not None:
            self.repeats.ended(kept, finished.answer, finished.discard)
        return finished

    async def _conclude(self, call: _UnderWay, finished: Finished, ending: Ending) -> None:
        """Writes the hold's end down, and beside it the answer for repeats: a slow database is waited for once."""
        hold, kept, sent = call.hold, call.kept, _sent(finished.dispatched)
        if isinstance(ending, NewTask):
            writing: Coroutine[Any, Any, Ended | None] = self.ledger.bind_surely(
                hold.id, hold.order, ending, sent
            )
        else:
            writing = self.ledger.end_surely(hold.id, ending, sent, hold.order)
        if kept is None or not kept.by_key:  # the others' answers are kept when they are read
            ended = await writing
        else:
            ended, _ = await asyncio.gather(writing, self.repeats.keep(kept, finished.answer))
        if ended is not None:
            finished.remaining = ended.remaining

    async def _give_up(self, call: _UnderWay) -> None:
        """The process is ending, or a defect: the call may have been sent."""
        conclusion = Conclusion(state="unknown", reason="interrupted")
        try:
            await asyncio.shield(self.ledger.end_surely(call.hold.id, conclusion, order=call.hold.order))
        finally:
            if call.kept is not None:
                self.repeats.gave_up(call.kept)


async def _judged(call: _UnderWay, dispatched: Dispatched) -> tuple[Finished, Ending]:
    """What became of the call, and how its hold ends."""
    reply = dispatched.reply
    if reply is None:
        return _without_answer(call, dispatched)
    if not call.operation.asynchronous:
        return _completed(call, dispatched, reply, await _answer_in(reply.body))
    text = await whole(reply.body) if reply.body.size <= LARGEST_SUBMIT else b""
    return _accepted(call, dispatched, reply, text)


async def _answer_in(body: SpooledBody) -> answer_scanner.Answer:
    if body.in_memory:
        return answer_scanner.answer_in(body.read_small())
    scanner = answer_scanner.AnswerScanner()
    async for chunk in body.chunks():
        scanner.feed(chunk)
    return scanner.finish()


def _without_answer(call: _UnderWay, dispatched: Dispatched) -> tuple[Finished, Ending]:
    """Released when Pixapi certainly did nothing, else kept as unknown."""
    unknown = dispatched.verdict is Verdict.UNKNOWN
    reason = dispatched.error.reason if dispatched.error is not None else dispatched.verdict.value
    conclusion = Conclusion(state="unknown" if unknown else "released", reason=reason)
    finished = Finished(
        dispatched,
        error=dispatched.error,
        executed=unknown,
        unknown=unknown,
        held=call.hold.order.quote if unknown else None,
    )
    return finished, conclusion


def _accepted(call: _UnderWay, dispatched: Dispatched, reply: Reply, text: bytes) -> tuple[Finished, Ending]:
    """The task and its owner are recorded before the client learns its id."""
    hold, task = call.hold, submitted(text)
    if task is None or dispatched.key is None:
        return _odd(call, dispatched, reply)
    record = NewTask(
        id=task.id, upstream_key_id=dispatched.key.id, status="submitted", body=first_state(task)
    )
    finished = Finished(
        dispatched, reply=reply, task_id=task.id, held=hold.order.quote, remaining=hold.remaining
    )
    return finished, record


def _completed(
    call: _UnderWay, dispatched: Dispatched, reply: Reply, answer: answer_scanner.Answer
) -> tuple[Finished, Ending]:
    """A sync answer costs what the price book says for the images in it, marked estimated."""
    if not answer.is_object or answer.images is None:
        return _odd(call, dispatched, reply)
    cost = call.hold.charged // call.body.generation.images * answer.images
    flags = () if answer.images else ("odd_answer",)
    conclusion = Conclusion(state="settled", settled=cost, estimated=True, flags=flags)
    return Finished(dispatched, reply=reply, charged=cost), conclusion


def _odd(call: _UnderWay, dispatched: Dispatched, reply: Reply) -> tuple[Finished, Ending]:
    """A complete 2xx that is not Pixapi's: something was executed, so the quote is charged and flagged."""
    reply.body.close()
    quote = call.hold.order.quote
    conclusion = Conclusion(state="settled", settled=quote, estimated=True, flags=("odd_answer",))
    finished = Finished(
        dispatched,
        charged=quote,
        error=errors.upstream_error(
            f"Pixapi answered {reply.status} with something that is not an answer of its API. The call counts as "
            "executed and is charged at its quote; the platform team sees it by this request id."
        ),
    )
    return finished, conclusion


def _interrupted() -> GatewayError:
    """Requests are cancelled only when the process ends: the client must not take that for a reason to repeat."""
    return errors.outcome_unknown(
        "The gateway had to end before Pixapi answered. The call may have been executed; the platform "
        "team sees it by this request id.",
        timed_out=False,
    )


def _sent(dispatched: Dispatched) -> list[SentVia]:
    return [
        SentVia(
            upstream_key_id=attempt.upstream_key_id,
            outcome=attempt.outcome,
            status=attempt.status,
            milliseconds=attempt.milliseconds,
        )
        for attempt in dispatched.attempts
    ]


def _note(exchange: Exchange, finished: Finished) -> None:
    attempts = finished.dispatched.attempts
    exchange.attempts = len(attempts)
    exchange.upstream_ms = sum([attempt.milliseconds for attempt in attempts])
    exchange.upstream_key = attempts[-1].upstream_key if attempts else None
    exchange.task_id = finished.task_id
    remaining = None if finished.remaining is None else max(0, finished.remaining)
    for name, amount in (
        (b"x-credits-held", finished.held),
        (b"x-credits-charged", finished.charged),
        (b"x-credits-remaining", remaining),
    ):
        if amount is not None:
            exchange.answer_headers.append((name, to_text(amount).encode()))


def _discard(task: asyncio.Task[Finished]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().discard()
