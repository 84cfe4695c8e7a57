"""Addresses: what is taken, in which spelling, and what the refusal says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gateway.settings.addresses import (
    check_database_url,
    check_host,
    check_origin,
    check_proxy,
    check_readable_file,
    check_redis_url,
    check_spool_directory,
)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:p@h:5432/db",
        "postgresql+psycopg://u:p#s/s?w:rd@h/db",
        "postgresql+psycopg://u@/db?host=/run/postgresql",
        "postgresql+psycopg:///db?host=a:5432&host=b:5432",
        "postgresql+psycopg://u:p@[::1]:5432/db",
        "postgresql+psycopg://h",
    ],
)
def test_database_addresses(url: str) -> None:
    assert check_database_url(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://u:p@h/db", "must begin with postgresql\\+psycopg://"),
        ("postgresql://u:p@h/db", "must begin with postgresql\\+psycopg://"),
        ("postgresql+asyncpg://u:p@h/db", "must begin with postgresql\\+psycopg://"),
        ("mysql://h/db", "must be a Postgres address"),
        ("h:5432", "must be a Postgres address"),
        ("postgresql+psycopg://u:p@ss@h/db", "percent-encode"),
        ("postgresql+psycopg://u:p@h:99999/db", "port"),
        ("postgresql+psycopg://u:p@h:5432,i:5432/db", "port"),
    ],
)
def test_database_refusals(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_database_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6379/",
        "rediss://u:p@h:6380/15",
        "unix:///run/valkey.sock?db=1",
        "rediss://h/1?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
        "redis://[::1]/0",
    ],
)
def test_redis_addresses(url: str) -> None:
    assert check_redis_url(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h", "must begin with redis://"),
        ("redis://", "names no host"),
        ("redis://h/name", "database number"),
        ("redis://:p#w@h/0", "percent-encode"),
        ("redis://h:x/0", "percent-encode"),
        ("redis://h:0/0", "port 0"),
        ("unix://", "names no socket"),
        ("redis://h /0", "spaces"),
        ("rediss://h?ssl_cert_reqs=bogus", "unusable value for the option 'ssl_cert_reqs'"),
        ("redis://h?db=one", "unusable value for the option 'db'"),
        ("redis://h?socket_timeout=abc", "has the option 'socket_timeout'; known ones are db"),
    ],
)
def test_redis_refusals(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.pixapi.ai", "https://api.pixapi.ai"),
        ("HTTPS://API.pixapi.ai/", "https://api.pixapi.ai"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert check_origin(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "api.pixapi.ai",
        "ftp://h",
        "https://",
        "https://h/v1",
        "https://h?x=1",
        "https://h?",
        "https://h#x",
        "https://u:p@h",
        "https://h:99999",
        "https://a b",
        "https://h_!",
    ],
)
def test_origin_refusals(url: str) -> None:
    with pytest.raises(ValueError):
        check_origin(url)


def test_proxies() -> None:
    assert check_proxy("http://u:p@proxy:3128/") == "http://u:p@proxy:3128"
    for url in ("socks5://proxy:1080", "proxy:3128", "http://proxy/path", "http://proxy?x"):
        with pytest.raises(ValueError):
            check_proxy(url)


@pytest.mark.parametrize(
    ("name", "host"),
    [("Example.COM.", "example.com"), ("[::1]", "::1"), ("0.0.0.0", "0.0.0.0"), ("a-b_c", "a-b_c")],
)
def test_hosts(name: str, host: str) -> None:
    assert check_host(name) == host


@pytest.mark.parametrize(
    "name", ["", "*", "*.example.com", "http://x", "x:80", "a..b", "a b", "x/y", "x" * 254]
)
def test_host_refusals(name: str) -> None:
    with pytest.raises(ValueError):
        check_host(name)


def test_spool_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_spool_directory(str(tmp_path)) == tmp_path
    assert check_spool_directory(None) == Path(tempfile.gettempdir())
    for wrong in (str(tmp_path / "none"), 5, ["x"]):
        with pytest.raises(ValueError):
            check_spool_directory(wrong)

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(ValueError, match="no temporary directory"):
        check_spool_directory(None)


def test_access_rights_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    path.touch()
    assert check_readable_file(path) == path
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="not readable"):
        check_readable_file(path)
    with pytest.raises(ValueError, match="not writable"):
        check_spool_directory(tmp_path)
    with pytest.raises(ValueError, match="not an existing file"):
        check_readable_file(tmp_path)
