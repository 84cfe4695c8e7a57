"""Fresh answers without the endpoint, validators on every 200, and what a client asks anew."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.middleware.response_cache import ResponseCacheMiddleware
from gateway.proxy.caching import Found, Rule, asks_anew, etag_of
from gateway.proxy.exchange import Exchange, Headers

BODY = b'{"id":"t"}'


def exchange(*headers: tuple[bytes, bytes]) -> Exchange:
    return Exchange(request_id="req_1", started=0.0, client=None, headers=headers)


class Endpoint:
    """Answers `status` with the chunks of `body`."""

    def __init__(self, status: int = 200, *body: bytes) -> None:
        self.status = status
        self.body = body or (BODY,)
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        length = b"%d" % sum(len(chunk) for chunk in self.body)
        headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"x-cache", b"miss")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for chunk in self.body[:-1]:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": self.body[-1]})


async def nothing(_: Scope) -> Found | None:
    return None


async def fresh(_: Scope) -> Found | None:
    return Found(BODY, [(b"content-type", b"application/json"), (b"x-cache", b"hit")])


async def answer(
    rule: Rule, endpoint: Endpoint, *headers: tuple[bytes, bytes]
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: Scope = {"type": "http", "gateway.exchange": exchange(*headers)}
    await ResponseCacheMiddleware(endpoint, rule=rule)(scope, receive, send)
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one.get("body", b"") for one in sent[1:])


async def test_a_fresh_entry_answers_in_the_endpoint_s_place() -> None:
    endpoint = Endpoint()
    status, headers, body = await answer(fresh, endpoint)
    assert (status, body, headers[b"x-cache"], endpoint.calls) == (200, BODY, b"hit", 0)
    assert headers[b"content-length"] == b"10"
    assert headers[b"etag"] == etag_of(BODY)


async def test_without_one_the_endpoint_answers_with_the_same_tag() -> None:
    status, headers, body = await answer(nothing, Endpoint())
    assert (status, body, headers[b"etag"]) == (200, BODY, etag_of(BODY))
    assert etag_of(b"other") != etag_of(BODY)


@pytest.mark.parametrize("rule", [fresh, nothing])
@pytest.mark.parametrize("given", [b"%s", b"W/%s", b'"other", %s', b" %s ", b'"a",W/%s,"b"', b"*"])
async def test_who_has_it_already_gets_no_body(rule: Rule, given: bytes) -> None:
    tags = given.replace(b"%s", etag_of(BODY))
    status, headers, body = await answer(rule, Endpoint(), (b"if-none-match", tags))
    assert (status, body, headers[b"etag"]) == (304, b"", etag_of(BODY))
    assert b"x-cache" in headers
    assert not {b"content-length", b"content-type"} & set(headers)


@pytest.mark.parametrize("given", [b'"other"', b"", etag_of(BODY)[1:-1], etag_of(BODY) + b"x"])
async def test_another_tag_gets_the_body(given: bytes) -> None:
    status, _, body = await answer(fresh, Endpoint(), (b"if-none-match", given))
    assert (status, body) == (200, BODY)


async def test_several_headers_are_one_list() -> None:
    both: Headers = ((b"if-none-match", b'"a"'), (b"if-none-match", etag_of(BODY)))
    assert (await answer(fresh, Endpoint(), *both))[0] == 304


@pytest.mark.parametrize(
    ("value", "anew"),
    [
        (b"no-cache", True),
        (b"No-Cache", True),
        (b"max-age=0, no-cache", True),
        (b"max-age=0", True),
        (b"max-age=60", False),
        (b"no-transform", False),
        (b'private="no-cache"', False),
        (b"", False),
    ],
)
async def test_no_cache_goes_past_the_entry(value: bytes, anew: bool) -> None:
    endpoint = Endpoint()
    await answer(fresh, endpoint, (b"cache-control", value))
    assert endpoint.calls == anew
    assert asks_anew(exchange((b"cache-control", value))) is anew


@pytest.mark.parametrize("status", [404, 503, 302])
async def test_what_is_no_200_has_no_tag(status: int) -> None:
    found, headers, body = await answer(nothing, Endpoint(status), (b"if-none-match", b"*"))
    assert (found, body) == (status, BODY)
    assert b"etag" not in headers


async def test_an_answer_in_pieces_is_passed_on() -> None:
    status, headers, body = await answer(
        nothing, Endpoint(200, b"one", b"two", b""), (b"if-none-match", b"*")
    )
    assert (status, body) == (200, b"onetwo")
    assert b"etag" not in headers
