"""Heads as no client library would write them: hosts, sizes, request lines, header lines."""

from __future__ import annotations

import pytest

from tests.e2e.data_plane.raw_calls import BODY, JSON, LENGTH, post, refused
from tests.e2e.data_plane.rig import SYNC, Rig, error_of
from tests.e2e.data_plane.wire import Wire, head


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Host: a", "Host: a"),
        ("Host: a", "Host: b"),
        ("Host:",),
        ("Host:  ",),
        ("Host: x/v1/models?",),
        ("Host: x/healthz?",),
        ("Host: x#",),
        ("Host: user@x",),
        ("Host: x y",),
        ("Host: x:port",),
        ("Host: x:123456",),
        ("Host: [::1",),
        ("Host: x,y",),
        ("Host: x\\y",),
        ("Host: -x",),
        ("Host: x\xe9",),
        ("Host: " + "x" * 300,),
    ],
)
def test_an_odd_host_is_refused(shared: Rig, fields: tuple[str, ...]) -> None:
    refused(
        shared,
        head(f"POST {SYNC} HTTP/1.1", *fields, f"Authorization: Bearer {shared.key}", JSON, LENGTH) + BODY,
    )


@pytest.mark.parametrize(
    "host", ["gateway", "Gateway.Example.com:8080", "127.0.0.1:80", "[::1]:8080", "a_b.c-d"]
)
def test_any_well_formed_host_is_served(shared: Rig, host: str) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, host=f"Host: {host}") + BODY)
        assert wire.answer().status_code == 200


def test_a_host_does_not_open_the_admin_api(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head("GET /admin/api/teams HTTP/1.1", "Host: localhost"))
        error_of(wire.answer(), 401, "authentication_error", "invalid_admin_token")


@pytest.mark.parametrize(
    "fields",
    [
        [f"x-{number}: v" for number in range(101)],
        [f"x-{number}: v" for number in range(3_000)],
        ["x-long: " + "v" * 16_384],
        ["x-long: " + "v" * 100_000],
        [f"x-{number}: {'v' * 1000}" for number in range(20)],
    ],
)
def test_headers_have_limits(shared: Rig, fields: list[str]) -> None:
    refused(shared, post(shared, LENGTH, *fields) + BODY, 431, "headers_too_large")


def test_a_hundred_headers_and_eight_kilobytes_of_target_are_fine(shared: Rig) -> None:
    with Wire(shared.gateway.process.port) as wire:
        wire.send(post(shared, LENGTH, *(f"x-{number}: v" for number in range(96))) + BODY)
        assert wire.answer().status_code == 200
        target = "/v1/models?" + "a" * (8192 - 11)
        wire.send(head(f"GET {target} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {shared.key}"))
        assert wire.answer().status_code == 200


@pytest.mark.parametrize(
    "target", ["/v1/models?" + "a" * 8182, "/v1/" + "m" * 8189, "/v1/models?" + "a" * 100_000]
)
def test_a_target_has_its_limit(shared: Rig, target: str) -> None:
    refused(shared, head(f"GET {target} HTTP/1.1", "Host: gateway"), 414, "uri_too_long")


@pytest.mark.parametrize(
    "line",
    [
        "GET http://169.254.169.254/ HTTP/1.1",
        "GET http://gateway/v1/models HTTP/1.1",
        "CONNECT gateway:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /v1/models#x HTTP/1.1",
        "GET /v1/models HTTP/2.0",
        "GET /v1/models HTTP/1.2",
        "GET /v1/models HTTP/0.9",
        "GET /v1/models http/1.1",
        "GET  /v1/models HTTP/1.1",
        "GET /v1/models  HTTP/1.1",
        "GET /v1/mod els HTTP/1.1",
        "GET /v1/models",
        "get /v1/models HTTP/1.1",
        "GET\t/v1/models HTTP/1.1",
        "GET v1/models HTTP/1.1",
        "\x16\x03\x01\x02 HTTP/1.1",
    ],
)
def test_an_odd_request_line_is_refused(shared: Rig, line: str) -> None:
    refused(shared, head(line, "Host: gateway", f"Authorization: Bearer {shared.key}"))


@pytest.mark.parametrize(
    "line",
    [
        "x-folded: a\r\n b",
        " x-space: a",
        "x-no-colon",
        ": no-name",
        "x space: a",
        "x-nul: a\x00b",
        "x-bare: a\rb",
        "x-bare: a\nx-next: b",
    ],
)
def test_an_odd_header_line_is_refused(shared: Rig, line: str) -> None:
    refused(shared, post(shared, LENGTH, line) + BODY)
