"""Addresses of pictures in tasks' states: only what a page may show, and origins that are nothing but that."""

from __future__ import annotations

import json

import pytest

from gateway.tasks.pictures import MOST, addresses, origin


def state(*urls: object, kind: object = "image") -> bytes:
    return json.dumps(
        {"id": "task_1", "result": {"type": kind, "data": [{"url": url} for url in urls]}}
    ).encode()


def test_addresses_of_pictures_are_found_once_each() -> None:
    one, other = "https://cdn.example.com/a.png?x=1&y='2'", "http://127.0.0.1:8090/files/b.png"
    assert addresses(state(one, other, one)) == (one, other)
    assert len(addresses(state(*(f"https://a.example/{n}.png" for n in range(50))))) == MOST


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", b"{}", b'{"result": null}', b'{"result": {}}', b'{"result": "x"}',
        b'{"result": {"type": "image", "data": {"url": "https://a.example/1.png"}}}',
        b'{"result": {"type": "image", "data": [null, 1, {}, {"url": null}, {"b64_json": "AAAA"}]}}',
        state("https://a.example/film.mp4", kind="video"), state("https://a.example/1.png", kind=None),
    ],
)  # fmt: skip
def test_other_bodies_have_none(body: bytes) -> None:
    assert addresses(body) == ()


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "data:image/png;base64,AAAA", "//a.example/1.png", "/files/1.png", "ftp://a.example/1",
        "https:///1.png", "https://a.example;script-src *", "https://a.example *", "https://*/1.png",
        "https://u:p@a.example/1.png", "https://a.example:99999/1.png", "https://a.example:x/1.png",
        "https://a.example/1.png\r\nx: y", "https://ä.example/1.png", "https://a.example,b/1", "https://[::1/1.png",
        "https://a.example/" + "x" * 5000,
    ],
)  # fmt: skip
def test_what_a_page_must_not_load_has_no_origin(url: str) -> None:
    assert origin(url) == ""
    assert addresses(state(url)) == ()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://cdn.example.com/a.png", "https://cdn.example.com"),
        ("HTTPS://Cdn.example.com:8443/a", "https://Cdn.example.com:8443"),
        ("http://[2001:db8::1]:80/a", "http://[2001:db8::1]:80"),
        ("https://a.example?x", "https://a.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, wanted: str) -> None:
    assert origin(url) == wanted
