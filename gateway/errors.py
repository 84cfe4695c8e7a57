"""Every failure the gateway answers, in Pixapi's error shape.

`GatewayError` is the one exception that becomes an answer. It is raised anywhere and rendered in one
place (`middleware/error_responses.py`; the socket layer uses `render` for heads it refuses before there is
a request). The constructors below are the whole vocabulary: status, `type` and `reason` are fixed there,
callers add the message. `docs/errors.md` lists every reason, and a test holds it to this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_DETAIL: Mapping[str, Any] = MappingProxyType({})

# Whether a repeat can help without costing a second time; sent as `x-should-retry` on these statuses.
RETRY_HINT_STATUSES = frozenset({402, 408, 409, 429, *range(500, 600)})


class GatewayError(Exception):
    """A failure with the answer it gets.

    `status` is the HTTP status and the body's `code`; `type` the contract's error type; `reason` a stable
    word for programs; `message` one or two sentences for people: what is wrong and what to do. It must never
    hold a secret or a prompt. `retry` becomes `x-should-retry` where the status calls for it. `detail` holds the facts
    behind the message, fit for JSON; it is not answered but kept with the refusal.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - the field's name on the wire
        reason: str,
        message: str,
        *,
        retry: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
        detail: Mapping[str, Any] = NO_DETAIL,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.type = type
        self.reason = reason
        self.message = message
        self.retry = retry
        self.headers = headers
        self.detail = detail

    def once_more(self, headers: Mapping[str, str]) -> GatewayError:
        """The failure of an earlier call, answered to a repeat of it, with these headers besides its own."""
        return GatewayError(
            self.status, self.type, self.reason, self.message, headers={**self.headers, **headers}
        )


def render(error: GatewayError, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer for `error`; the caller adds `x-request-id`."""
    body = msgspec.json.encode(
        {
            "error": {
                "code": error.status,
                "message": error.message,
                "type": error.type,
                "reason": error.reason,
                "request_id": request_id,
            }
        }
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
    if error.status in RETRY_HINT_STATUSES:
        headers.append((b"x-should-retry", b"true" if error.retry else b"false"))
    return headers, body


# 4xx: the caller's to mend ---------------------------------------------------------------------------------


def bad_request(message: str, reason: str = "invalid_request") -> GatewayError:
    """400: framing, syntax, a bad or duplicated field."""
    return GatewayError(400, "invalid_request_error", reason, message)


def broken_framing(message: str) -> GatewayError:
    """400 for a request whose end cannot be trusted: the connection closes after it."""
    return GatewayError(
        400, "invalid_request_error", "invalid_framing", message, headers={"connection": "close"}
    )


def unauthenticated() -> GatewayError:
    """401: one wording for every key problem, so that an answer tells nothing about which keys exist."""
    return GatewayError(
        401,
        "authentication_error",
        "invalid_key",
        "The key is missing, malformed, unknown, expired or revoked. Send 'Authorization: Bearer pxg_…' "
        "with a key of your team; the platform team issues keys.",
        headers={"www-authenticate": "Bearer"},
    )


def unauthenticated_admin() -> GatewayError:
    """401 of the admin API: same rule, other key."""
    return GatewayError(
        401,
        "authentication_error",
        "invalid_admin_token",
        "The admin token is missing, malformed, unknown or revoked. Send 'Authorization: Bearer pxa_…'; "
        "'pixapi-gateway admin-tokens issue' makes one. In a browser, sign in at /admin/login.",
        headers={"www-authenticate": "Bearer"},
    )


def insufficient_quota(message: str, detail: Mapping[str, Any] = NO_DETAIL) -> GatewayError:
    """402: the call would pass a quota; the message holds the arithmetic."""
    return GatewayError(402, "insufficient_quota", "quota_exceeded", message, detail=detail)


def forbidden(message: str, reason: str, detail: Mapping[str, Any] = NO_DETAIL) -> GatewayError:
    """403: known caller, not allowed: model, address, operation, role, suspended team, unpriced model."""
    return GatewayError(403, "permission_error", reason, message, detail=detail)


def not_found(
    message: str = "There is nothing at this path. The routes are listed in docs/api.md.",
    reason: str = "not_found",
) -> GatewayError:
    """404: unknown route, or an object that does not exist for this caller."""
    return GatewayError(404, "not_found_error", reason, message)


def task_not_found() -> GatewayError:
    """404 of a task: the same answer for unknown, foreign and malformed ids."""
    return not_found("This team has no task with this id.", "task_not_found")


def method_not_allowed(allowed: str) -> GatewayError:
    """405, with the methods that do work here, e.g. `"GET, HEAD"`."""
    return GatewayError(
        405,
        "method_not_allowed",
        "method_not_allowed",
        f"This path answers {allowed} only.",
        headers={"allow": allowed},
    )


def conflict(message: str, reason: str) -> GatewayError:
    """409 of the admin API: the change contradicts what is stored."""
    return GatewayError(409, "conflict_error", reason, message)


def conflict_for_now(message: str, reason: str) -> GatewayError:
    """409 of the admin API: something that runs once at a time is running; nothing was changed."""
    return GatewayError(409, "conflict_error", reason, message, retry=True, headers={"retry-after": "5"})


def idempotency_in_progress() -> GatewayError:
    """409: the first call with this Idempotency-Key has not ended."""
    return GatewayError(
        409,
        "idempotency_in_progress",
        "idempotency_in_progress",
        "A call with this Idempotency-Key is still running. Ask again with the same key; it is not executed twice.",
        retry=True,
        headers={"retry-after": "2"},
    )


def repeat_in_progress() -> GatewayError:
    """409: a call without an Idempotency-Key was to join an identical one each time it was tried, and never could."""
    return GatewayError(
        409,
        "idempotency_in_progress",
        "idempotency_in_progress",
        "Whenever this call was tried, an identical one was under way, and had gone when its answer was asked for. "
        "Nothing was sent for this one; send it again.",
        retry=True,
        headers={"retry-after": "2"},
    )


def idempotency_mismatch() -> GatewayError:
    """422: the Idempotency-Key belongs to a call with another body or path."""
    return GatewayError(
        422,
        "idempotency_mismatch",
        "idempotency_mismatch",
        "This Idempotency-Key was used for a call with another path or body. Send a new call with a new key.",
    )


def request_timeout(message: str) -> GatewayError:
    """408: the client stopped sending; nothing was executed."""
    return GatewayError(
        408, "request_timeout", "request_timeout", message, retry=False, headers={"connection": "close"}
    )


def too_large(message: str, reason: str = "request_too_large") -> GatewayError:
    """413: a body, file or form beyond its limit. The rest of the body is not read."""
    return GatewayError(413, "request_too_large", reason, message, headers={"connection": "close"})


def uri_too_long(limit: int) -> GatewayError:
    """414: the request target is longer than `limit` bytes."""
    return GatewayError(
        414,
        "uri_too_long",
        "uri_too_long",
        f"The request target is longer than {limit} bytes.",
        headers={"connection": "close"},
    )


def unsupported_media_type(message: str) -> GatewayError:
    """415: this route reads another content type or coding."""
    return GatewayError(415, "unsupported_media_type", "unsupported_media_type", message)


def expectation_failed() -> GatewayError:
    """417: an `Expect` other than 100-continue."""
    return GatewayError(
        417,
        "invalid_request_error",
        "expectation_failed",
        "Only 'Expect: 100-continue' can be met.",
        headers={"connection": "close"},
    )


def headers_too_large(message: str) -> GatewayError:
    """431: the header block or its number of fields is beyond the limit."""
    return GatewayError(
        431, "headers_too_large", "headers_too_large", message, headers={"connection": "close"}
    )


def rate_limited(
    message: str,
    reason: str,
    retry_after: float,
    *,
    allowance: Mapping[str, str] = NO_HEADERS,
    detail: Mapping[str, Any] = NO_DETAIL,
) -> GatewayError:
    """429: certainly not executed; `retry_after` in seconds says when it is worth another try.

    `allowance` are the `x-ratelimit-…` headers of the limit that was reached.
    """
    seconds = max(1, round(retry_after + 0.499))
    waits = {"retry-after": str(seconds), "retry-after-ms": str(max(1, round(retry_after * 1000)))}
    headers = {**waits, **allowance}
    return GatewayError(429, "rate_limit_error", reason, message, retry=True, headers=headers, detail=detail)


# 5xx: ours, or Pixapi's -------------------------------------------------------------------------------------


def internal_error() -> GatewayError:
    """500: a defect of the gateway. The log line with the same request id says what."""
    return GatewayError(
        500,
        "internal_error",
        "internal_error",
        "The gateway failed on this request. Tell the platform team the request id.",
    )


def upstream_error(message: str, reason: str = "upstream_error") -> GatewayError:
    """502: Pixapi answered with something that is not its API."""
    return GatewayError(502, "upstream_error", reason, message)


def outcome_unknown(message: str, *, timed_out: bool) -> GatewayError:
    """502 or 504: sent, and nothing usable came back. It may have been executed and billed."""
    return GatewayError(
        504 if timed_out else 502, "upstream_outcome_unknown", "upstream_outcome_unknown", message
    )


def answer_not_kept() -> GatewayError:
    """502: a repeat of a call that was executed, whose answer is not there any more. It is not executed again."""
    return GatewayError(
        502,
        "upstream_outcome_unknown",
        "answer_not_kept",
        "This repeats a call that was executed, and its answer could not be kept. Nothing was sent again; the platform "
        "team sees what became of the first call.",
    )


def overloaded(message: str, reason: str = "overloaded") -> GatewayError:
    """503: this process has no room; certainly not sent."""
    return GatewayError(503, "overloaded", reason, message, retry=True, headers={"retry-after": "1"})


def dependency_unavailable(message: str, reason: str = "database_unavailable") -> GatewayError:
    """503: the gateway's own database cannot be asked; certainly not sent."""
    return GatewayError(
        503, "dependency_unavailable", reason, message, retry=True, headers={"retry-after": "2"}
    )


def upstream_unavailable(message: str, reason: str, retry_after: float = 5) -> GatewayError:
    """503: Pixapi could not be reached or no key can be used; certainly not sent."""
    return GatewayError(
        503,
        "upstream_unavailable",
        reason,
        message,
        retry=True,
        headers={"retry-after": str(max(1, round(retry_after)))},
    )
