"""How an answer leaves the sandbox: clean, or bent by the faults of its request."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.sandbox import connection
from gateway.sandbox.call import Call
from gateway.sandbox.errors import numeric, string, word_for
from gateway.sandbox.faults import Faults

Document = dict[str, object]
Produce = Callable[[], Awaitable[Document]]

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_HANG_SECONDS = 700.0
_PIECE = 64 * 1024
_DRIP_PIECES = 20
_HTML = b"<!doctype html><html><head><title>Pixapi</title></head><body><h1>One moment</h1></body></html>"
_HOP_HEADERS = {
    "Connection": "X-Up, keep-alive",
    "X-Up": "hop",
    "Keep-Alive": "timeout=7, max=100",
    "Proxy-Connection": "keep-alive",
    "Proxy-Authenticate": "Basic",
}


async def respond(call: Call, produce: Produce) -> Response:
    """Answer a request: first the faults that keep it from being executed, then `produce`, then the rest."""
    if "delay" in call.faults:
        await asyncio.sleep(call.faults.number("delay"))
    response = _refuse(call)
    if response is None:
        response = _deliver(call.faults, await produce())
    call.entry.status = 0 if isinstance(response, Silence) else response.status_code
    return response


def json_response(status: int, document: object) -> Response:
    """A JSON answer; Decimals are written as exact numbers."""
    return Response(_ENCODER.encode(document), status, media_type="application/json")


def refusal(status: int, faults: Faults) -> Response:
    """An error status in the shape the faults ask for (numeric when they do not say)."""
    headers = {}
    if "retry_after" in faults:
        headers["Retry-After"] = faults.text("retry_after")
    shape = faults.text("shape", "numeric")
    message = f"Simulated error {status}."
    if shape == "none" or status in (204, 304):
        return Response(None, status, headers)
    if shape == "html":
        page = _HTML.replace(b"One moment", str(status).encode())
        return Response(page, status, headers, media_type="text/html")
    body = string(word_for(status), message) if shape == "string" else numeric(status, message)
    return Response(_ENCODER.encode(body), status, headers, media_type="application/json")


class Silence(Response):
    """No answer: a reset after `seconds` (0: at once), or when the client leaves."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, then reset the connection."""
        if self._seconds:
            try:
                async with asyncio.timeout(self._seconds):
                    await connection.wait_for_disconnect(receive)
                return
            except (TimeoutError, asyncio.CancelledError):
                # Cancelled when the server stops: leaving by a reset keeps it from answering 500 in our place.
                pass
        await connection.reset(scope, receive)


class Broken(Response):
    """Announces the whole body, sends half of it, and ends the connection: in order, or by a reset."""

    def __init__(self, body: bytes, *, by_reset: bool) -> None:
        super().__init__(body, media_type="application/json")
        self._by_reset = by_reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half and stop."""
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await (connection.reset if self._by_reset else connection.close)(scope, receive)


def _refuse(call: Call) -> Response | None:
    faults = call.faults
    if "reset" in faults:
        return Silence(0)
    if "hang" in faults:
        return Silence(faults.number("hang", _HANG_SECONDS))
    if "status" in faults:
        return refusal(int(faults.number("status")), faults)
    if "echo_key" in faults:
        status = int(faults.number("echo_key", 400))
        return json_response(status, numeric(status, f"Incorrect API key provided: {call.token}."))
    if "html" in faults:
        return Response(_HTML, 200, media_type="text/html")
    if "redirect" in faults:
        status = int(faults.number("redirect", 307))
        return Response(None, status, {"Location": f"{call.base_url}/v1/moved"})
    return None


def _deliver(faults: Faults, document: Document) -> Response:
    if "reset_after_execute" in faults:
        return Silence(0)
    if "hang_after_execute" in faults:
        return Silence(faults.number("hang_after_execute", _HANG_SECONDS))
    if "executes_then_500" in faults:
        return refusal(int(faults.number("executes_then_500", 500)), faults)
    if "empty_204" in faults:
        return Response(None, 204)
    if "no_data" in faults:
        document = {name: value for name, value in document.items() if name not in ("data", "result", "id")}
    body = _ENCODER.encode(document)
    if "bad_json" in faults:
        body = body[: len(body) // 2]
    if "half_body" in faults or "cut" in faults:
        return Broken(body, by_reset="cut" in faults)
    return _dressed(faults, body)


def _dressed(faults: Faults, body: bytes) -> Response:
    response: Response
    if "gzip" in faults:
        body = gzip.compress(body)
    if "big" in faults:
        response = _big(int(faults.number("big") * 1_000_000), body)
    elif "drip" in faults:
        response = StreamingResponse(_drip(body, faults.number("drip")), media_type="application/json")
        response.headers["Content-Length"] = str(len(body))
    else:
        response = Response(body, media_type="application/json")
    if "gzip" in faults:
        response.headers["Content-Encoding"] = "gzip"
    if "set_cookie" in faults:
        response.set_cookie("pixapi_session", "upstream-session", httponly=True)
        response.set_cookie("pixapi_route", "7")
    if "hop_headers" in faults:
        response.headers.update(_HOP_HEADERS)
    return response


def _big(size: int, body: bytes) -> Response:
    """A `{"created":…,"data":[{"b64_json":"AAAA…"}]}` whose text is `size` bytes, never held as a whole."""
    size -= size % 4
    created = msgspec.json.decode(body).get("created", 0)
    head, tail = f'{{"created":{created},"data":[{{"b64_json":"'.encode(), b'"}]}'

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        for start in range(0, size, _PIECE):
            yield b"A" * min(_PIECE, size - start)
        yield tail

    response = StreamingResponse(pieces(), media_type="application/json")
    response.headers["Content-Length"] = str(len(head) + size + len(tail))
    return response


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = max(1, len(body) // _DRIP_PIECES)
    for start in range(0, len(body), step):
        await asyncio.sleep(seconds / _DRIP_PIECES)
        yield body[start : start + step]
