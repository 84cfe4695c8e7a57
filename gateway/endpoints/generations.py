"""The paid routes: sends the call, answers its hold, then answers the client.

The call is a task of its own, so it ends the same way whether its client waits or not. Its hold is answered before
the first byte of the answer: bound to its task, settled, released, or kept as unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.catalog.model_list import ModelList
from gateway.credits.amount import to_text
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, NewTask, SentVia
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatched, Dispatcher, PaidCall
from gateway.pool.pool import UpstreamKey
from gateway.proxy.arrival import when_arrived
from gateway.proxy.exchange import Exchange, Hold, RequestBody, exchange_of
from gateway.proxy.generation import Operation
from gateway.proxy.leaving import ClientLeftError, left
from gateway.proxy.relay import relay
from gateway.repeats.answer import Answer, failed
from gateway.repeats.repeats import Repeats
from gateway.tasks.status import first_state
from gateway.telemetry import Metrics
from gateway.upstream.answer_scanner import AnswerScanner
from gateway.upstream.answers import submitted
from gateway.upstream.client import Reply
from gateway.upstream.headers import toward_client
from gateway.upstream.outcomes import Verdict

Result = TypeVar("Result")
LARGEST_SUBMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finished:
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
        leaving = asyncio.create_task(left(receive))
        await asyncio.sleep(0)
        if leaving.done():
            raise ClientLeftError  # before anything was sent: the hold is released
        call = self._call(exchange, hold, body, operation)
        task = seat.start(self._run(call, hold, body, operation))
        hold.claimed = True
        try:
            finished = await asyncio.shield(task)
        except asyncio.CancelledError:
            # Requests are cancelled only when the process ends: the client must not take that for a reason to repeat.
            task.add_done_callback(_discard)
            leaving.cancel()
            raise errors.outcome_unknown(
                "The gateway had to end before Pixapi answered. The call may have been executed; the platform "
                "team sees it by this request id.",
                timed_out=False,
            ) from None
        # What the call gave back is on its way to Redis before the answer is to the client.
        await asyncio.sleep(0)
        _note(exchange, finished)
        reply, there = finished.reply, False
        if reply is None:
            exchange.when_failure_sent = partial(self._answered, scope, hold, finished, not leaving.done())
            leaving.cancel()
            raise finished.error or errors.internal_error()
        try:
            headers = toward_client(reply.content_type, reply.body.size)
            there = await relay(send, reply.status, headers, reply.body, leaving)
        finally:
            leaving.cancel()
            self._answered(scope, hold, finished, there)

    def _answered(self, scope: Scope, hold: Hold, finished: Finished, there: bool) -> None:
        """The answer is written, if the client was `there` to the last byte. Only for repeats without a key it matters
        whether it has arrived."""
        repeatable = hold.order.repeatable
        if repeatable is None:
            finished.discard()
            return

        def written(delivered: bool) -> None:
            self.repeats.written(hold.id, repeatable, finished.answer, delivered=delivered)

        if there and repeatable.idempotency_key is None:
            when_arrived(scope, written)
        else:
            written(there)

    def _call(self, exchange: Exchange, hold: Hold, body: RequestBody, operation: Operation) -> PaidCall:
        def serves(key: UpstreamKey) -> bool:
            return self.models.lists(key.account, hold.model.id)

        return PaidCall(
            path=operation.path,
            body=body.raw,
            content_type=body.content_type,
            accept=exchange.header(b"accept"),
            request_id=exchange.request_id,
            timeout=self.submit_timeout if operation.asynchronous else self.sync_timeout,
            serves=serves,
            model=hold.model.id,
        )

    async def _run(self, call: PaidCall, hold: Hold, body: RequestBody, operation: Operation) -> Finished:
        """The call to its end, kept for whoever repeats it before its own client gets a byte."""
        repeatable = hold.order.repeatable
        if repeatable is None:
            return await self._send(call, hold, body, operation)
        self.repeats.began(hold.id)
        try:
            finished = await self._send(call, hold, body, operation)
        except BaseException:
            self.repeats.gave_up(hold.id)
            raise
        self.repeats.ended(hold.id, finished.answer, finished.discard)
        return finished

    async def _concluded(self, hold: Hold, verb: Awaitable[Result], finished: Finished) -> Result:
        """Writes the hold's end down, and beside it the answer for repeats: a slow database is waited for once."""
        repeatable = hold.order.repeatable
        if (
            repeatable is None or repeatable.idempotency_key is None
        ):  # the others' answers are kept when they are read
            return await verb
        done, _ = await asyncio.gather(verb, self.repeats.keep(hold.id, repeatable, finished.answer))
        return done

    async def _send(self, call: PaidCall, hold: Hold, body: RequestBody, operation: Operation) -> Finished:
        try:
            dispatched = await self.dispatcher.pay(call)
            for attempt in dispatched.attempts:
                self.metrics.upstream_attempts.labels(attempt.outcome).inc()
            if dispatched.reply is None:
                return await self._without_answer(hold, dispatched)
            try:
                if operation.asynchronous:
                    return await self._accepted(hold, dispatched, dispatched.reply)
                return await self._completed(hold, body, dispatched, dispatched.reply)
            except BaseException:
                dispatched.reply.body.close()
                raise
        except BaseException:
            # The process is ending, or a defect: the call may have been sent.
            await asyncio.shield(
                self.ledger.end_surely(
                    hold.id, Conclusion(state="unknown", reason="interrupted"), order=hold.order
                )
            )
            raise
        finally:
            body.raw.close()

    async def _without_answer(self, hold: Hold, dispatched: Dispatched) -> Finished:
        """Released when Pixapi certainly did nothing, else kept as unknown."""
        unknown = dispatched.verdict is Verdict.UNKNOWN
        reason = dispatched.error.reason if dispatched.error is not None else dispatched.verdict.value
        conclusion = Conclusion(state="unknown" if unknown else "released", reason=reason)
        finished = Finished(
            dispatched,
            error=dispatched.error,
            executed=unknown,
            unknown=unknown,
            held=hold.order.quote if unknown else None,
        )
        return await self._ended(hold, conclusion, finished)

    async def _accepted(self, hold: Hold, dispatched: Dispatched, reply: Reply) -> Finished:
        """The task and its owner are recorded before the client learns its id."""
        text = b""
        if reply.body.size <= LARGEST_SUBMIT:
            text = b"".join([chunk async for chunk in reply.body.chunks()])
        task = submitted(text)
        if task is None or dispatched.key is None:
            return await self._odd(hold, dispatched, reply)
        record = NewTask(
            id=task.id, upstream_key_id=dispatched.key.id, status="submitted", body=first_state(task)
        )
        finished = Finished(
            dispatched, reply=reply, task_id=task.id, held=hold.order.quote, remaining=hold.remaining
        )
        binding = self.ledger.bind_surely(hold.id, hold.order, record, _sent(dispatched))
        await self._concluded(hold, binding, finished)
        return finished

    async def _completed(
        self, hold: Hold, body: RequestBody, dispatched: Dispatched, reply: Reply
    ) -> Finished:
        """A sync answer costs what the price book says for the images in it, marked estimated."""
        scanner = AnswerScanner()
        async for chunk in reply.body.chunks():
            scanner.feed(chunk)
        answer = scanner.finish()
        if not answer.is_object or answer.images is None:
            return await self._odd(hold, dispatched, reply)
        cost = hold.charged // body.generation.images * answer.images
        conclusion = Conclusion(
            state="settled",
            settled=cost,
            estimated=True,
            flags=() if answer.images else ("odd_answer",),
        )
        return await self._ended(hold, conclusion, Finished(dispatched, reply=reply, charged=cost))

    async def _odd(self, hold: Hold, dispatched: Dispatched, reply: Reply) -> Finished:
        """A complete 2xx that is not Pixapi's: something was executed, so the quote is charged and flagged."""
        reply.body.close()
        conclusion = Conclusion(
            state="settled", settled=hold.order.quote, estimated=True, flags=("odd_answer",)
        )
        finished = Finished(
            dispatched,
            charged=hold.order.quote,
            error=errors.upstream_error(
                f"Pixapi answered {reply.status} with something that is not an answer of its API. The call counts as "
                "executed and is charged at its quote; the platform team sees it by this request id."
            ),
        )
        return await self._ended(hold, conclusion, finished)

    async def _ended(self, hold: Hold, conclusion: Conclusion, finished: Finished) -> Finished:
        """The call with what is left of the quota after its end."""
        ending = self.ledger.end_surely(hold.id, conclusion, _sent(finished.dispatched), hold.order)
        ended = await self._concluded(hold, ending, finished)
        return replace(finished, remaining=None if ended is None else ended.remaining)


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
    exchange.upstream_ms = sum(attempt.milliseconds for attempt in attempts)
    exchange.upstream_key = attempts[-1].upstream_key if attempts else None
    exchange.task_id = finished.task_id
    remaining = None if finished.remaining is None else max(0, finished.remaining)
    amounts = {"held": finished.held, "charged": finished.charged, "remaining": remaining}
    exchange.answer_headers += [
        (f"x-credits-{name}".encode(), to_text(amount).encode())
        for name, amount in amounts.items()
        if amount is not None
    ]


def _discard(task: asyncio.Task[Finished]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().discard()
