"""`pixapi-gateway doctor` on a served gateway: nothing is wrong; then one thing after the other is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from tests.e2e.harness import Gateway, Process, gateway, sandbox
from tests.fakes.scripted_server import answering, scripted

SECRET = "sk_doctor_5f2c9ab1"
OTHER = "other-master-key-m5Yb1Gc8Jf0Pa3Ue7Ri2-0123"
LIST = b'{"object":"list","data":[{"id":"gemini-3-pro-image-preview","object":"model"}]}'


@pytest.fixture(scope="module")
def pixapi() -> Iterator[Process]:
    with sandbox() as process:
        yield process


@pytest.fixture(scope="module")
def served(module_database_url: str, redis_url: str, pixapi: Process) -> Iterator[Gateway]:
    with gateway(module_database_url, redis_url, pixapi.base) as found:
        found.upstream_key(SECRET, "main")
        yield found


def _doctor(
    environment: dict[str, str], *flags: str, **changed: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and checks by name; of several with one name the worst, which comes first."""
    own = {f"GATEWAY_{name}": value for name, value in changed.items()}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "doctor", "--json", *flags],
        env={**os.environ, **environment, **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert SECRET not in done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    checks: dict[str, dict[str, str]] = {}
    for check in found["checks"]:
        checks.setdefault(check["name"], check)
    return done.returncode, checks


def _failed(checks: dict[str, dict[str, str]]) -> set[str]:
    assert all(check["advice"] for check in checks.values() if check["state"] != "ok")
    return {name for name, check in checks.items() if check["state"] == "fail"}


def test_a_served_gateway_has_nothing_wrong(served: Gateway) -> None:
    code, checks = _doctor(served.environment, SERVER__PORT=str(served.process.port))
    assert (code, _failed(checks)) == (0, set())
    assert checks["port"]["found"] == f"a gateway answers on 127.0.0.1:{served.process.port}"
    assert checks["upstream key main"]["found"].startswith("account main, active: accepted, ")
    assert checks["migrations"]["state"] == checks["Redis"]["state"] == checks["clock"]["state"] == "ok"


@pytest.mark.long
def test_another_program_on_the_port(served: Gateway, pixapi: Process) -> None:
    code, checks = _doctor(served.environment, SERVER__PORT=str(pixapi.port))
    assert (code, _failed(checks)) == (1, {"port"})


@pytest.mark.long
def test_a_wrong_master_key(served: Gateway) -> None:
    code, checks = _doctor(served.environment, SECRETS__MASTER_KEYS=OTHER)
    assert (code, _failed(checks)) == (1, {"upstream key main"})
    assert "secrets.master_keys" in checks["upstream key main"]["advice"]


@pytest.mark.long
def test_a_key_that_pixapi_refuses(served: Gateway, pixapi: Process) -> None:
    secret = "sk_revoked_0123456789"
    served.upstream_key(secret, "gone")
    httpx.post(f"{pixapi.base}/sandbox/keys/revoke", json={"key": secret}, trust_env=False).raise_for_status()
    try:
        code, checks = _doctor(served.environment)
        assert (code, _failed(checks)) == (1, {"upstream key gone"})
        assert "make a new key at Pixapi" in checks["upstream key gone"]["advice"]
        assert _doctor(served.environment, "--offline")[0] == 0, "nobody was asked"
    finally:
        served.call("DELETE", "/upstream-keys/gone", params={"force": "true"})


@pytest.mark.long
def test_a_database_that_was_never_migrated(served: Gateway, empty_database_url: str) -> None:
    code, checks = _doctor(served.environment, DATABASE__URL=empty_database_url)
    assert (code, _failed(checks)) == (1, {"migrations"})
    assert checks["migrations"]["advice"] == "run: pixapi-gateway db upgrade"


@pytest.mark.long
def test_a_database_that_is_not_there(served: Gateway) -> None:
    code, checks = _doctor(served.environment, DATABASE__URL="postgresql+psycopg://u:hunter2@127.0.0.1:1/d")
    assert (code, _failed(checks)) == (1, {"database"})
    assert "hunter2" not in json.dumps(checks)
    assert checks["Pixapi"]["state"] == "ok", "the rest is looked at all the same"


@pytest.mark.long
def test_a_ledger_without_its_trigger(served: Gateway, database_url: str) -> None:
    address = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger_entries DISABLE TRIGGER append_only")
    _, checks = _doctor(served.environment, "--offline", DATABASE__URL=database_url)
    assert _failed(checks) == {"append-only", "upstream keys"}


@pytest.mark.long
def test_redis_is_down(served: Gateway) -> None:
    code, checks = _doctor(served.environment, REDIS__URL="redis://127.0.0.1:1/0")
    assert (code, _failed(checks)) == (1, {"Redis"})


@pytest.mark.long
def test_pixapi_is_not_there(served: Gateway) -> None:
    code, checks = _doctor(served.environment, UPSTREAM__BASE_URL="http://127.0.0.1:1")
    assert (code, _failed(checks)) == (1, {"Pixapi"})
    assert "upstream.base_url" in checks["Pixapi"]["advice"]


@pytest.mark.long
async def test_a_clock_that_is_wrong(served: Gateway) -> None:
    dated = ("date", "Sun, 01 Mar 2026 12:00:00 GMT")
    async with scripted(answering(200, LIST, ("content-type", "application/json"), dated)) as pixapi:
        command = [sys.executable, "-m", "gateway", "doctor", "--json"]
        environment = {**os.environ, **served.environment, "GATEWAY_UPSTREAM__BASE_URL": pixapi.url}
        child = await _run(command, environment)
    checks = {check["name"]: check for check in reversed(json.loads(child)["checks"])}
    assert checks["clock"]["state"] == "warn"
    assert "ahead of Pixapi" in checks["clock"]["found"]
    assert "chrony" in checks["clock"]["advice"]


async def _run(command: list[str], environment: dict[str, str]) -> bytes:
    child = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    return output


@pytest.mark.long
def test_a_spool_too_small_for_one_upload(served: Gateway) -> None:
    code, checks = _doctor(served.environment, SERVER__SPOOL_MAX_BYTES="1048576")
    assert (code, _failed(checks)) == (1, {"spool folder"})
    assert "raise server.spool_max_bytes" in checks["spool folder"]["advice"]


@pytest.mark.long
def test_settings_that_cannot_be_used(served: Gateway) -> None:
    code, checks = _doctor(served.environment, SECRETS__KEY_PEPPER="changeme")
    assert (code, set(checks)) == (2, {"settings"})
