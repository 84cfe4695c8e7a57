"""The one way to Pixapi: lease a key → send → classify → report → repeat only if it cannot cost twice.

A paid call is sent again in two cases, once each and counted apart: when no byte of it left (any key), and when
Pixapi definitely refused our key (another key). A call that may have been executed is never repeated. A read costs
nothing and is sent a second time within the time of one, and within one in ten of all reads.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import msgspec

from gateway import errors, tracing
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.pool.health import Look
from gateway.pool.pool import Lease, Pool, UpstreamKey, no_key
from gateway.pool.read_budget import ReadFor
from gateway.pool.retry_budget import RetryBudget
from gateway.spool import SpooledBody
from gateway.upstream import outcomes
from gateway.upstream.client import Call, NotSentError, Reply, SentUnknownError, UpstreamClient
from gateway.upstream.headers import toward_pixapi
from gateway.upstream.outcomes import Outcome, Trouble, Verdict

REPEATS = 1  # of each kind
SENDS = 1 + 2 * REPEATS
READ_AGAIN_SECONDS = 1.0  # what a repeated read needs to have left
LARGEST_LIST = 8 * 1024 * 1024
_A_TASK = "/v1/tasks/{id}"
REFUSED_RETRY_SECONDS = 5.0  # short: SDKs wait that long before their user hears what is wrong


class PaidCall(msgspec.Struct, frozen=True):
    """What the client wants sent; `serves` says which keys' accounts have its model; `timeout` in seconds.

    `model` tells apart a key that fails from a model that does."""

    path: str
    body: SpooledBody
    content_type: bytes
    accept: bytes | None
    request_id: str
    timeout: float
    serves: Callable[[UpstreamKey], bool]
    model: str = ""


class Attempt(msgspec.Struct, frozen=True):
    """One send, for the record."""

    upstream_key_id: UUID
    upstream_key: str
    outcome: str
    status: int | None
    milliseconds: int


class Dispatched(msgspec.Struct):
    """What became of a call: the last attempt's verdict, its reply when answered, else the error for the client."""

    verdict: Verdict
    error: GatewayError | None
    reply: Reply | None = None
    key: UpstreamKey | None = None
    attempts: list[Attempt] = msgspec.field(default_factory=list)


class Dispatcher:
    """Sends paid calls and reads through the pool."""

    def __init__(self, pool: Pool, client: UpstreamClient, clock: Clock, read_timeout: float = 10.0) -> None:
        self._pool = pool
        self._client = client
        self._clock = clock
        self._read_timeout = read_timeout
        self._repeats = RetryBudget()

    async def pay(self, call: PaidCall) -> Dispatched:
        """Sends a paid call at most `SENDS` times, again only when the send before certainly was not executed."""
        result = Dispatched(Verdict.NOT_SENT, None)
        refused: list[UUID] = []
        empty: set[str] = set()
        lost = 0
        while lost <= REPEATS and len(refused) <= REPEATS:
            try:
                if empty:
                    lease = await self._lease_elsewhere(call, refused, empty)
                else:
                    lease = await self._pool.take_paid(call.serves, without=refused)
            except GatewayError as error:
                # After a refusal its own words say more, unless another key will be ready soon.
                if result.error is None or (error.status == 429 and result.error.status != 429):
                    result.error = error
                return result
            key = lease.key
            outcome, reply, seconds = await self._attempt(
                lease, _paid_request(call, key), call.model, repeats=len(result.attempts)
            )
            verdict = outcome.verdict
            result.attempts.append(
                Attempt(key.id, key.label, verdict.value, outcome.status, round(seconds * 1000))
            )
            result.verdict, result.reply, result.error, result.key = verdict, reply, outcome.error, key
            if verdict is Verdict.NOT_SENT:
                lost += 1
            elif verdict.concerns_our_key:
                refused.append(key.id)
                result.error = _refused(outcome)
                if verdict is Verdict.KEY_EXHAUSTED:
                    empty.add(key.account)
            else:
                break
        return result

    async def _lease_elsewhere(self, call: PaidCall, refused: Sequence[UUID], empty: Container[str]) -> Lease:
        """A key not tried yet, rather of an account that has not just said that it is out of credits."""
        with suppress(GatewayError):
            return await self._pool.take_paid(
                lambda key: call.serves(key) and key.account not in empty, without=refused
            )
        return await self._pool.take_paid(call.serves, without=refused)

    async def read(
        self, path: str, account: str, request_id: str, preferred: UUID | None = None, *, sends: int = 1
    ) -> Reply:
        """A free GET through a key of this account; raises GatewayError when no complete 2xx came back.

        With two `sends` it is repeated, rather with another key, when Pixapi refused this one, did not answer or
        failed: in what is left of the time of one read, and within the budget of repeats.
        """
        failure: GatewayError | None = None
        tried: list[UUID] = []
        ends = self._clock.monotonic() + self._read_timeout
        while len(tried) < sends:
            try:
                lease = self._pool.lease_read(account, preferred, tried)
            except GatewayError as error:
                raise failure or error from None
            left = self._read_timeout if not tried else ends - self._clock.monotonic()
            tried.append(lease.key.id)
            outcome, reply = await self._get(lease, path, request_id, left)
            if reply is not None:
                return reply
            failure = outcome.error or _refused(outcome)
            if len(tried) < sends and not self._may_repeat(outcome, ends - self._clock.monotonic()):
                break
        raise failure or no_key()

    def _may_repeat(self, outcome: Outcome, left: float) -> bool:
        if outcome.verdict.concerns_our_key:
            return left > 0
        failed = outcome.trouble is not None or outcome.verdict in (Verdict.NOT_SENT, Verdict.UNKNOWN)
        return failed and left >= READ_AGAIN_SECONDS and self._repeats.take()

    async def look(self, key: UpstreamKey, request_id: str) -> Look:
        """What the model list says of a key, whether it rests or not; nothing is reported to the pool."""
        return (await list_models(self._client, key.secret, request_id, self._read_timeout)).look

    def take_task_read(self, account: str, preferred: UUID, purpose: ReadFor) -> Lease | None:
        """A lease for `read_with`, as `Pool.take_task_read` gives it."""
        return self._pool.take_task_read(account, preferred, purpose)

    def release(self, lease: Lease, *, made: bool) -> None:
        """Gives a lease back that was not used; without `made` the key's share of reads is given back too."""
        if made:
            self._pool.release(lease)
        else:
            self._pool.give_back_task_read(lease)

    async def read_with(self, lease: Lease, path: str, request_id: str) -> Reply:
        """A free GET through a key that is leased already; raises as `read` does."""
        outcome, reply = await self._get(lease, path, request_id, self._read_timeout)
        if reply is None:
            raise outcome.error or _refused(outcome)
        return reply

    async def _get(
        self, lease: Lease, path: str, request_id: str, timeout: float
    ) -> tuple[Outcome, Reply | None]:
        self._repeats.made()
        call = _read_call(lease.key.secret, path, request_id, timeout)
        outcome, reply, _ = await self._attempt(lease, call)
        return outcome, reply

    async def _attempt(
        self, lease: Lease, call: Call, model: str = "", *, repeats: int = 0
    ) -> tuple[Outcome, Reply | None, float]:
        """One send with what became of it and the seconds it took; the lease is given back."""
        started = self._clock.monotonic()
        try:
            outcome, reply = await _sent(self._client, call, lease.key.secret)
        except BaseException:
            self._pool.release(lease)
            raise
        self._pool.report(lease, outcome, model)
        seconds = self._clock.monotonic() - started
        if (trace := tracing.current()) is not None:
            trace.sent(_told(call, lease.key, outcome, repeats, seconds))
        return outcome, reply, seconds


@dataclass(frozen=True, slots=True)
class Listed:
    """What asking for the model list with one key has come to. `body` is empty unless a 2xx came."""

    outcome: Outcome
    body: bytes = b""

    @property
    def look(self) -> Look:
        """What that says of the key."""
        if self.outcome.verdict is Verdict.KEY_REFUSED:
            return Look.REFUSED
        # Whose account is known to be empty is known.
        known = self.outcome.verdict is Verdict.KEY_EXHAUSTED or outcomes.is_model_list(self.body)
        return Look.ACCEPTED if known else Look.UNDECIDED


async def list_models(client: UpstreamClient, secret: str, request_id: str, timeout: float) -> Listed:
    """Asks for the free model list with this key; never raises for what Pixapi does."""
    outcome, reply = await _sent(client, _read_call(secret, "/v1/models", request_id, timeout), secret)
    if reply is None:
        return Listed(outcome)
    try:
        large = reply.body.size > LARGEST_LIST
        body = b"" if large else b"".join([chunk async for chunk in reply.body.chunks()])
    finally:
        reply.body.close()
    return Listed(outcome, body)


def _paid_request(call: PaidCall, key: UpstreamKey) -> Call:
    headers = toward_pixapi(
        secret=key.secret,
        request_id=call.request_id,
        content_type=call.content_type,
        accept=call.accept,
        content_length=call.body.size,
    )
    return Call("POST", call.path, headers, call.timeout, call.body)


def _read_call(secret: str, path: str, request_id: str, timeout: float) -> Call:
    headers = toward_pixapi(secret=secret, request_id=request_id, accept=b"application/json")
    return Call("GET", path, headers, timeout)


async def _sent(client: UpstreamClient, call: Call, secret: str) -> tuple[Outcome, Reply | None]:
    try:
        return _judge(await client.send(call), secret)
    except NotSentError as error:
        return outcomes.not_sent(str(error)), None
    except SentUnknownError as error:
        return outcomes.unknown(str(error), Trouble.BARE, timed_out=error.timed_out), None
    except GatewayError as error:
        # The answer could not be kept (spool full): Pixapi has executed all the same.
        return outcomes.unknown(f"Pixapi's answer could not be kept ({error.reason})"), None


def _told(call: Call, key: UpstreamKey, outcome: Outcome, repeats: int, seconds: float) -> tracing.Sent:
    return tracing.Sent(
        method=call.method,
        path=_A_TASK if call.path.startswith("/v1/tasks/") else call.path,
        outcome=outcome.verdict.value,
        status=outcome.status,
        upstream_key=key.label,
        repeats=repeats,
        seconds=seconds,
    )


def _judge(reply: Reply, secret: str) -> tuple[Outcome, Reply | None]:
    """The outcome of a complete reply; the reply itself only when it is an answer to pass on."""
    if 200 <= reply.status < 300:
        return Outcome(Verdict.ANSWERED, status=reply.status, date=reply.date), reply
    try:
        text = reply.body.read_small()
    finally:
        reply.body.close()
    outcome = outcomes.classify(reply.status, text, reply.retry_after, secret)
    return msgspec.structs.replace(outcome, status=reply.status, date=reply.date), None


def _refused(outcome: Outcome) -> GatewayError:
    """What the client gets when our key was refused and no other could serve."""
    if outcome.verdict is Verdict.THROTTLED:
        wait = min(max(outcome.retry_after or 5.0, 1.0), 60.0)
        return errors.rate_limited(
            "Pixapi asked the gateway's keys to slow down; nothing was executed.", "upstream_throttled", wait
        )
    if outcome.verdict is Verdict.KEY_EXHAUSTED:
        return errors.upstream_unavailable(
            "The Pixapi accounts behind the gateway are out of credits; nothing was executed. "
            "The platform team has to top them up.",
            "upstream_out_of_credits",
            retry_after=REFUSED_RETRY_SECONDS,
        )
    return errors.upstream_unavailable(
        "Pixapi refused the gateway's own keys; nothing was executed. The platform team sees which with "
        "'pixapi-gateway upstream-keys list'.",
        "upstream_key_refused",
        retry_after=REFUSED_RETRY_SECONDS,
    )
