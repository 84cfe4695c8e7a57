"""The sentences of explanations: what a word in the database means, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from gateway.access.refusals import KeptRefusal
from gateway.credits.amount import to_text
from gateway.credits.history import CountedOn
from gateway.credits.holds import ListedHold
from gateway.proxy.refused import REPLAYED
from gateway.tasks.listing import ListedTask

NOT_KEPT = "its words are not kept, they may be Pixapi's."
NOWHERE = (
    "There is no such request id: either it never reached a hold and its refusal is older than a day (or was one of "
    "too many at once), or it was never here. Compare it with the x-request-id of the answer."
)

FLAGS: Mapping[str, str] = {
    "overrun": "It cost more than was quoted; the excess is booked on its own.",
    "odd_cost": "Pixapi named no usable credits_cost, so it settled at its quote; ask Pixapi what it charged.",
    "odd_answer": "Pixapi's answer was complete but not what its API promises; look at the call at Pixapi.",
    "aged": "Nobody knew in time how it ended, so time ended it at its quote; correct it if Pixapi says otherwise.",
    "shadow_refused": "A quota that only counts (enforce: false) had no room for it; an enforced one would refuse.",
}
ATTEMPTS: Mapping[str, str] = {
    "answered": "",
    "rejected": "Pixapi refused this very request and executed nothing.",
    "key_refused": "Pixapi refused the gateway's key, so another was tried if there was one.",
    "key_exhausted": "That Pixapi account is out of credits: top it up.",
    "throttled": "Pixapi asked the key to slow down.",
    "not_sent": "No byte left: the connection was never made.",
    "unknown": "It was sent and nobody knows what became of it.",
}
_Outcome = Literal["ok", "refused", "failed", "unknown", "note"]
ATTEMPT_OUTCOMES: Mapping[str, _Outcome] = {"answered": "ok", "rejected": "refused", "unknown": "unknown"}
STATE_OUTCOMES: Mapping[str, _Outcome] = {
    "held": "note",
    "settled": "ok",
    "released": "failed",
    "unknown": "unknown",
}
_NEXT: Mapping[str, str] = {
    "quota_exceeded": "Raise the quota with 'pixapi-gateway quotas set', or wait until it resets.",
    "requests_per_minute": "Spread the calls, or raise requests_per_minute of the key or the team.",
    "calls_in_flight": "Wait for calls to end, or raise max_in_flight of the key or the team.",
    "model_not_allowed": "Change allowed_models of the key or the team, or use a model it may.",
    "address_not_allowed": "Add the client's address with 'pixapi-gateway keys update --allowed-addresses'.",
    "team_suspended": "'pixapi-gateway teams resume' lets the team call again.",
    "model_without_price": "Give the model a price in models.toml; it holds within seconds.",
    "model_not_offered": "Add an upstream key of a Pixapi account that lists the model.",
    "invalid_key": "Check which key the client sends; issue a new one with 'pixapi-gateway keys issue'.",
    "no_upstream_key": "'pixapi-gateway upstream-keys list' shows the pool; add or enable a key.",
    "upstream_keys_resting": "'pixapi-gateway upstream-keys list' says why they rest; 'enable' ends a rest.",
    "upstream_keys_full": "Raise max_in_flight of an upstream key, or add one.",
    "overloaded": "Raise server.max_paid_in_flight or run more processes if it happens often.",
    "database_unavailable": "Look at Postgres; /readyz says whether it can be asked.",
    "internal_error": "A defect of the gateway: the log line with this request id has the trace.",
}


def moment(at: datetime) -> str:
    """A moment to the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def summary(hold: ListedHold | None, refusal: KeptRefusal | None, task: ListedTask | None) -> str:
    """How it ended, and what to do next."""
    if hold is None:
        if refusal is None:
            return NOWHERE
        if refusal.reason == REPLAYED:
            return "A repeat: it was answered with what an earlier call had answered. Nothing was sent or charged."
        text = f"Refused with {refusal.status} {refusal.reason}; nothing was sent to Pixapi or charged."
        return f"{text} {_NEXT.get(refusal.reason, 'docs/errors.md says what the reason means.')}"
    quote = to_text(hold.quote)
    if hold.state == "held":
        waits = f"its task {task.id} is {task.status}" if task is not None else "the call has not ended"
        return f"Under way: {quote} credits are held while {waits}."
    if hold.state == "unknown":
        return (
            f"Unknown: it was sent and nobody knows how it ended; {quote} credits stay held. Look it up at Pixapi by "
            f"its time and model, then 'pixapi-gateway holds resolve {hold.id}'."
        )
    if hold.state == "released":
        why = f" ({hold.reason})" if hold.reason else ""
        text = f"Failed without cost{why}: the hold of {quote} credits was released."
        advice = _NEXT.get(hold.reason or "")
        return f"{text} {advice}" if advice else text
    cost = to_text(hold.settled or 0)
    return f"Executed: it was charged {cost} credits{' by the price book' if hold.estimated else ''}."


def ending(hold: ListedHold, overrun: int, *, has_task: bool) -> str:
    """What became of the hold, its flags in words."""
    reason = f" Reason: {hold.reason}." if hold.reason else ""
    if hold.state == "held":
        text = "The hold is open."
    elif hold.state == "unknown":
        text = "The hold is unknown: its credits stay held until an admin resolves it, or a day has passed."
    elif hold.state == "released":
        text = "The hold was released: nothing was charged."
    else:
        real = "Pixapi's own credits_cost" if has_task else "a number Pixapi or an admin named"
        source = "an estimate by the price book" if hold.estimated else real
        text = f"Settled at {to_text(hold.settled or 0)} credits, {source}."
    if overrun:
        text += f" {to_text(overrun)} of them are an overrun."
    words = [FLAGS[flag] for flag in hold.flags if flag in FLAGS and flag != "shadow_refused"]
    return " ".join([text + reason, *words])


def counted(quotas: Sequence[CountedOn], placed_at: datetime) -> str:
    """The quotas a hold was placed on; one that was changed since says so, for its limit is today's."""
    if not quotas:
        return "on no quota (the team is unlimited, or the quotas were removed since)."
    return f"placed on {' and '.join(_one_counted(one, placed_at) for one in quotas)}."


def _one_counted(quota: CountedOn, placed_at: datetime) -> str:
    text = f"the {'key' if quota.on_key else 'team'}'s {quota.period} quota of {to_text(quota.limit)}"
    words = [] if quota.enforce else ["shadow"]
    if quota.updated_at > placed_at:
        words.append(f"changed to this {moment(quota.updated_at)}")
    return f"{text} ({', '.join(words)})" if words else text


def arithmetic(quota: Mapping[str, Any]) -> str:
    """The sum that did not fit, as it was then."""
    resets = quota.get("resets_at")
    return (
        f"The {quota['scope']}'s {quota['period']} quota: limit {quota['limit']} − settled {quota['settled']} − held "
        f"{quota['held']} = {quota['remaining']} remaining, {quota['needed']} needed; "
        f"{f'resets {resets}' if resets else 'never resets'}."
    )


def limit(found: Mapping[str, Any]) -> str:
    """Which limit had no room."""
    lane = "reads" if found.get("lane") == "free" else "paid calls"
    return f"{found['by']} of the {found['scope']}, {found['limit']} for {lane}, was used up."


def no_key(key_id: str | None, problem: str) -> str:
    """Why nobody is known to have asked."""
    if key_id is not None and problem == "not accepted":
        return f"The key pxg_{key_id} does not exist here: another gateway's, or made up."
    if key_id is not None:
        return f"The key pxg_{key_id} is gone."
    words = {
        "missing": "No Authorization header was sent.",
        "several": "Several Authorization headers were sent; exactly one is read.",
        "no bearer token": "The Authorization header is not 'Bearer pxg_…'.",
        "malformed": "What was sent as a key is none: its shape or checksum is wrong, so it was cut off or mistyped.",
    }
    return words.get(problem, "No key is known.")


def why_not_accepted(state: str) -> str:
    """What was wrong with a key that exists."""
    if state.startswith(("revoked", "expired", "not issued")):
        return "That is why it was refused."
    return "Its public id is right and its secret part is not: it was mistyped or made up."


def repeats(*, by_key: bool, state: str, taken: int) -> str:
    """Who may repeat the call, and who has."""
    if by_key:
        return f"It has an Idempotency-Key: repeats with it get this call's answer ({state})."
    if taken:
        times = f"{taken} time{'s' if taken > 1 else ''}"
        return f"An SDK repeated it {times}; the repeats joined this call and cost nothing."
    return "No repeat has joined it."
