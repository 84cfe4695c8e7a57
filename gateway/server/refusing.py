"""What becomes of bytes that are no request: an answer in the contract's shape, and a line in the access log."""

from __future__ import annotations

from gateway import logs
from gateway.errors import GatewayError, render
from gateway.ids import new_request_id
from gateway.server.cycle import STATUS_LINES, Header


def answer_to(refusal: GatewayError, client: tuple[str, int] | None, default_headers: list[Header]) -> bytes:
    """The whole answer, and its line, like any request's as far as anything is known of this one."""
    request_id = new_request_id()
    logs.request(
        logs.RequestLine(
            request_id=request_id,
            status=refusal.status,
            reason=refusal.reason,
            client=client[0] if client else None,
        )
    )
    headers, body = render(refusal, request_id)
    headers = [*default_headers, *headers, (b"x-request-id", request_id.encode())]
    return b"\r\n".join([STATUS_LINES[refusal.status], *map(b": ".join, headers), b"", body])
