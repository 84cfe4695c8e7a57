"""An address is read as redis-py reads it, without loading redis-py."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import quote, urlencode

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from gateway.cache.address import PORT, Address

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
numbers = st.integers(0, 99_999).map(str)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    user, password = (quote(draw(words), safe="") for _ in range(2))
    login = draw(st.sampled_from(["", f"{user}@", f":{password}@", f"{user}:{password}@"]))
    options = draw(st.dictionaries(st.sampled_from(["username", "password"]), words))
    options |= draw(st.one_of(st.just({}), st.fixed_dictionaries({"db": numbers})))
    query = f"?{urlencode(options)}" if options else ""
    if draw(st.booleans()):
        return f"unix://{login}/run/{quote(draw(words))}.sock{query}"
    host = draw(st.sampled_from(["redis", "10.0.0.1", "[::1]", "Redis.example"]))
    port = draw(st.sampled_from(["", ":6380", ":1"]))
    return f"redis://{login}{host}{port}{draw(st.sampled_from(['', '/', '/0', '/3']))}{query}"


@given(addresses())
def test_what_an_address_says_is_what_redis_py_reads(url: str) -> None:
    read, meant = Address(url), dict(parse_url(url))
    assert read.path == meant.get("path")
    if read.path is None:
        assert (read.host, read.port) == (meant["host"], meant.get("port", PORT))
    said = {name: rest for name, *rest in read.greeting}
    login = [meant[name] for name in ("username", "password") if name in meant]
    assert said.get("AUTH", []) == (login if "password" in meant else [])
    assert said.get("SELECT", [0]) == [meant.get("db", 0)]
    assert [name for name, *_ in read.greeting] == [name for name in ("AUTH", "SELECT") if name in said]


def test_redis_py_is_loaded_for_tls_only() -> None:
    code = (
        "import sys; from gateway.cache.address import Address; Address('redis://h/1'); "
        "print('redis' in sys.modules); Address('rediss://h'); print('redis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["False", "True"]
