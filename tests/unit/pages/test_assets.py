"""Vendored files are those of their checksums, and pages find every file by its digest."""

from __future__ import annotations

import hashlib

import pytest

from gateway.errors import GatewayError
from gateway.pages.assets import FOLDER, PREFIX, Assets
from tests.fakes.asgi import call, http

VENDOR = FOLDER / "vendor"


def test_vendored_files_are_unchanged() -> None:
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    known = {name: digest for digest, name in (line.split() for line in lines)}
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.*s*")}
    assert known == {name: digest for name, digest in files.items() if name.endswith((".js", ".css"))}


async def test_a_file_is_kept_by_browsers_under_its_digest() -> None:
    assets = Assets()
    link = assets.link("gateway.css")
    assert link.startswith(f"{PREFIX}/")
    digest, name = link.split("/")[-2:]
    scope = http("GET", link)
    scope["path_params"] = {"digest": digest, "name": name}
    sent = await call(assets, scope)
    assert sent.body == (FOLDER / "gateway.css").read_bytes()
    assert b"immutable" in dict(sent.headers)[b"cache-control"]
    for wrong in ({"digest": "0" * 16, "name": name}, {"digest": digest, "name": "../view.py"}):
        with pytest.raises(GatewayError):
            await call(assets, {**scope, "path_params": wrong})
