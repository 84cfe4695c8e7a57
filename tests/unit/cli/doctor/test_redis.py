"""What the doctor says of Redis."""

from __future__ import annotations

import pytest

from gateway.cli.doctor import redis
from gateway.cli.doctor.redis import RedisFacts
from tests.unit.cli.doctor.facts import settings

GOOD = {"redis_version": "7.2.4", "role": "master", "maxmemory": "0", "maxmemory_policy": "noeviction"}


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (RedisFacts(GOOD, None, 0.001), "ok", "version 7.2.4, answers in 1.0 ms"),
        (RedisFacts(GOOD | {"valkey_version": "9.1.2"}, None, 0.001), "ok", "Valkey 9.1.2"),
        (RedisFacts({}, None, 0.001), "ok", "?"),
        (RedisFacts(GOOD | {"redis_version": "6.2.0"}, None, 0.001), "ok", "6.2.0"),
        (RedisFacts(GOOD | {"redis_version": "6.0.16"}, None, 0.001), "fail", "install Redis 6.2"),
        (RedisFacts(GOOD | {"role": "slave", "master_host": "m"}, "READONLY", 0.001), "fail", "the primary"),
        (RedisFacts(GOOD, "NOPERM this user", 0.001), "fail", "right to write"),
        (RedisFacts(GOOD | {"maxmemory": "1048576"}, None, 0.001), "warn", "allkeys-lru"),
        (
            RedisFacts(GOOD | {"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, None, 0.001),
            "ok",
            "7.2.4",
        ),
        (RedisFacts(GOOD, None, 0.06), "warn", "60 ms"),
        (RedisFacts(GOOD, None, 0.2), "fail", "raise redis.timeout"),
    ],
)
def test_redis(facts: RedisFacts, state: str, words: str) -> None:
    check = redis.judge(facts, settings())[0]
    assert check.state == state
    assert words in check.found + check.advice


async def test_one_that_is_not_there_is_named_without_its_password() -> None:
    (check,) = await redis.look(settings(REDIS__URL="redis://:hunter2-hunter2@127.0.0.1:1/0"))
    assert check.state == "fail"
    assert "127.0.0.1" in check.found
    assert "hunter2" not in check.found + check.advice
