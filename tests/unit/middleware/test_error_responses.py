"""One renderer: ours as they are, anything else as a 500 that says nothing."""

from __future__ import annotations

import logging

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.middleware.error_responses import SHORT_BODY, ErrorResponsesMiddleware
from tests.fakes.asgi import HOST, Header, Sent, call, http, ok, with_exchange


def failing(error: BaseException, *, after_start: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


async def answered(app: ASGIApp, *headers: Header, body_complete: bool = False) -> Sent:
    scope = http("POST", headers=[HOST, *headers])
    with_exchange(scope, body_complete=body_complete)
    return await call(ErrorResponsesMiddleware(app), scope)


async def test_a_failure_of_ours_is_answered_in_pixapi_s_shape() -> None:
    sent = await answered(failing(errors.rate_limited("Slow down.", "team_rate", 1.5)))
    assert sent.status == 429
    assert sent.error == {
        "code": 429,
        "message": "Slow down.",
        "type": "rate_limit_error",
        "reason": "team_rate",
        "request_id": "req_test",
    }
    assert sent.values(b"content-type") == [b"application/json"]
    assert sent.values(b"content-length") == [str(len(sent.body)).encode()]
    assert sent.values(b"retry-after-ms") == [b"1500"]
    assert sent.values(b"x-should-retry") == [b"true"]


async def test_a_defect_says_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    sent = await answered(failing(RuntimeError("the secret sk_live_123")))
    assert (sent.status, sent.error["reason"]) == (500, "internal_error")
    assert b"sk_live" not in sent.body
    (record,) = caplog.records
    assert record.exc_info is not None
    assert vars(record)["request_id"] == "req_test"


@pytest.mark.parametrize("error", [errors.internal_error(), RuntimeError("x")])
async def test_after_the_first_byte_nothing_else_is_sent(error: Exception) -> None:
    scope = http()
    exchange = with_exchange(scope)
    sent = Sent()

    async def receive() -> dict[str, object]:
        raise AssertionError("not asked")

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        exchange.status = message["status"]  # as request_context does above it
        sent.messages.append(message)

    with pytest.raises(type(error)):
        await ErrorResponsesMiddleware(failing(error, after_start=True))(scope, receive, send)
    assert [message["type"] for message in sent.messages] == ["http.response.start"]
    assert exchange.failure == "internal_error"


async def test_the_reason_is_kept_for_the_log_line(caplog: pytest.LogCaptureFixture) -> None:
    scope = http()
    exchange = with_exchange(scope)
    await call(ErrorResponsesMiddleware(failing(errors.task_not_found())), scope)
    assert exchange.failure == "task_not_found"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ([], False),
        ([(b"content-length", b"0")], False),
        ([(b"content-length", str(SHORT_BODY).encode())], False),
        ([(b"content-length", str(SHORT_BODY + 1).encode())], True),
        ([(b"content-length", b"nonsense")], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([(b"content-length", b"1"), (b"expect", b"100-continue")], True),
    ],
)
async def test_a_connection_with_much_unread_is_closed(headers: list[Header], closes: bool) -> None:
    app = failing(errors.unauthenticated())
    assert (await answered(app, *headers)).values(b"connection") == ([b"close"] if closes else [])
    assert (await answered(app, *headers, body_complete=True)).values(b"connection") == []


async def test_close_is_said_once() -> None:
    sent = await answered(failing(errors.too_large("x")), (b"transfer-encoding", b"chunked"))
    assert sent.values(b"connection") == [b"close"]


async def test_a_success_passes_untouched() -> None:
    sent = await answered(ok)
    assert (sent.status, sent.headers, sent.body) == (200, [(b"x-own", b"1")], b"ok")


async def test_a_lifespan_passes_with_its_failures() -> None:
    with pytest.raises(RuntimeError, match="not reachable"):
        await call(ErrorResponsesMiddleware(failing(RuntimeError("not reachable"))), {"type": "lifespan"})
