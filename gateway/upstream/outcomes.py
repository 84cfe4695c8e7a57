"""What a reply of Pixapi, or the lack of one, means for a paid call. Pure.

The one question is whether Pixapi may have executed and billed. Everything that is not certain is `UNKNOWN`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from gateway import errors
from gateway.errors import GatewayError

KEY_REFUSED_CODES = frozenset(
    {
        "unauthorized",
        "invalid_api_key",
        "invalid_key",
        "key_disabled",
        "key_expired",
        "key_revoked",
        "account_disabled",
        "account_suspended",
    }
)
_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    408: "request_timeout",
    409: "conflict_error",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "upstream_unavailable",
}
_LONGEST_MESSAGE = 1000
# Words go into the ledger and the log, so they are words.
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Verdict(Enum):
    """What became of one attempt."""

    ANSWERED = "answered"  # a complete 2xx: executed
    REJECTED = "rejected"  # Pixapi's definite no to this request: nothing executed
    KEY_REFUSED = "key_refused"  # a definite no to our key
    KEY_EXHAUSTED = "key_exhausted"  # our account is out of credits
    THROTTLED = "throttled"  # our key is too fast
    NOT_SENT = "not_sent"  # no byte of the request left
    UNKNOWN = "unknown"  # sent, and nothing certain came back

    @property
    def concerns_our_key(self) -> bool:
        """A definite refusal that says nothing about the request: another key may do."""
        return self in _OUR_KEY

    @property
    def may_have_executed(self) -> bool:
        return self in (Verdict.ANSWERED, Verdict.UNKNOWN)


_OUR_KEY = (Verdict.KEY_REFUSED, Verdict.KEY_EXHAUSTED, Verdict.THROTTLED)


class Trouble(Enum):
    """A failure of Pixapi's side, which says something about the key's way there when it goes on."""

    BARE = "bare"  # a time-out, a lost connection, a 5xx without Pixapi's error body
    WORDED = "worded"  # a 5xx with it


class Outcome(msgspec.Struct, frozen=True):
    """A verdict with the error the client would get for it (None when answered) and Pixapi's retry-after in seconds.

    `status` and `date` are the reply's, when there was one.
    """

    verdict: Verdict
    error: GatewayError | None = None
    retry_after: float | None = None
    trouble: Trouble | None = None
    status: int | None = None
    date: str | None = None


@dataclass(frozen=True, slots=True)
class PixapiError:
    """Pixapi's error body, from either of its two shapes."""

    message: str
    type: str | None  # numeric shape
    word: str | None  # string shape: prompt_rejected, model_not_found, …


def read_error(body: bytes) -> PixapiError | None:
    """The error in a reply's body, or None when it is not Pixapi's: HTML, a proxy's text, nothing."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    error: Any = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    code, kind = error.get("code"), error.get("type")
    if not isinstance(code, (int, str)) or isinstance(code, bool):
        return None
    return PixapiError(
        message=error["message"],
        type=_word(kind),
        word=_word(code) if isinstance(code, str) and not code.isdigit() else None,
    )


def classify(status: int, body: bytes, retry_after: float | None, secret: str) -> Outcome:
    """The outcome of a complete reply. `body` may be empty for a 2xx; `secret` is scrubbed from what is passed on."""
    if 200 <= status < 300:
        return Outcome(Verdict.ANSWERED)
    if 300 <= status < 400:
        message = f"Pixapi's address answered with a redirect ({status}), which is never followed."
        return Outcome(Verdict.REJECTED, errors.upstream_error(message, "upstream_redirect"))
    error = read_error(body)
    word = error.word if error is not None else None
    definite = 400 <= status < 500 or (status in (500, 503) and error is not None)
    trouble = None if status < 500 else Trouble.BARE if error is None else Trouble.WORDED
    if not definite:
        return unknown(f"Pixapi's side answered {status} without saying what became of the call", trouble)
    if status == 402 or word == "insufficient_credits":
        return Outcome(Verdict.KEY_EXHAUSTED)
    if status == 429:
        return Outcome(Verdict.THROTTLED, retry_after=retry_after)
    if status == 401 or (status == 403 and word in KEY_REFUSED_CODES):
        return Outcome(Verdict.KEY_REFUSED)
    if status == 408 and error is None:
        return unknown("Pixapi's side gave up waiting for the request")
    if error is None:
        message = f"Something between the gateway and Pixapi refused the call with status {status}."
        return Outcome(Verdict.REJECTED, errors.upstream_error(message))
    return Outcome(Verdict.REJECTED, _passed_on(status, error, secret), trouble=trouble)


def unknown(what: str, trouble: Trouble | None = None, *, timed_out: bool = False) -> Outcome:
    """Sent, outcome unknown; `what` says what was seen, `trouble` whether that was Pixapi's side's failure."""
    message = (
        f"{what}. It may have been executed and billed, so it is not repeated and its credits stay held; "
        "the platform team can resolve the hold by this request id."
    )
    error = errors.outcome_unknown(message, timed_out=timed_out)
    return Outcome(Verdict.UNKNOWN, error, trouble=trouble)


def is_model_list(body: bytes) -> bool:
    """Whether a 2xx's body is a model list in Pixapi's shape, and not some page of a middle box."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("data"), list)


def not_sent(what: str) -> Outcome:
    """No byte left: repeating is safe."""
    message = (
        f"Pixapi could not be reached ({what}); nothing was sent and nothing is charged. Try again shortly."
    )
    return Outcome(Verdict.NOT_SENT, errors.upstream_unavailable(message, "upstream_unreachable"))


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _passed_on(status: int, error: PixapiError, secret: str) -> GatewayError:
    kind = error.type or _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    return GatewayError(
        status,
        scrub(kind, secret),
        scrub(error.word or "rejected_by_pixapi", secret),
        scrub(error.message, secret)[:_LONGEST_MESSAGE],
        retry=status in (500, 503),
    )


def scrub(text: str, secret: str, shortest: int = 8) -> str:
    """`text` without any run of `shortest` or more characters of the secret."""
    pieces, start, at = [], 0, 0
    while at + shortest <= len(text):
        if text[at : at + shortest] not in secret:
            at += 1
            continue
        end = at + shortest
        while end < len(text) and text[at : end + 1] in secret:
            end += 1
        pieces += [text[start:at], "[redacted]"]
        start = at = end
    return "".join([*pieces, text[start:]])
