"""A real Prometheus scrapes two workers, loads the alert rules and answers the dashboard's queries."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from tests.docs.pages import ROOT
from tests.docs.queries import RULES, SCRAPES, alert_rules, panel_queries
from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually

MODEL = "gemini-2.5-flash-image"
TOKEN = "k7Tq2vXw9LzR4mYc8NfH3sJb6GdA1eUp"

prometheus_binary = shutil.which("prometheus")
promtool_binary = shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    prometheus_binary is None or promtool_binary is None,
    reason="Debian's package 'prometheus' is not installed: no real Prometheus was tried",
)


@dataclass(frozen=True)
class Rig:
    """A gateway of two workers that has served `calls` paid calls of the team `studio`."""

    gateway: Gateway
    calls: int

    def page(self) -> str:
        answer = httpx.get(f"{self.gateway.base}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        return answer.raise_for_status().text


@pytest.fixture(scope="module")
def rig(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    environment = {"GATEWAY_SERVER__WORKERS": "2", "GATEWAY_METRICS__TOKEN": TOKEN}
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base, environment) as gateway,
    ):
        gateway.upstream_key("sk_acct_7b21e0c4d90001", "main", account="acct")
        key = gateway.key(gateway.team("Studio")["slug"])
        order = {"model": MODEL, "prompt": "A cup"}
        calls = 0
        deadline = time.monotonic() + 20
        served: set[str] = set()
        rig = Rig(gateway, 0)
        while len(served) < 2:  # each connection may be accepted by either
            assert time.monotonic() < deadline, f"only {served} served"
            with gateway.client(key) as client:
                calls += client.post("/v1/images/generations", json=order).status_code == 200
            served = set(placed(rig.page()))
        yield Rig(gateway, calls)


def placed(page: str) -> dict[str, float]:
    """Holds placed, by worker."""
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "gateway_holds_total" and sample.labels["event"] == "placed" and sample.value
    }


def value(page: str, name: str, **labels: str) -> float:
    """The sum of the series with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_any_worker_answers_for_both(rig: Rig) -> None:
    pages = [rig.page() for _ in range(6)]  # a connection each
    assert {tuple(sorted(placed(page).items())) for page in pages} == {
        tuple(sorted(placed(pages[0]).items()))
    }
    page = pages[0]
    assert sum(placed(page).values()) == rig.calls
    assert value(page, "gateway_holds_total", event="settled") == rig.calls
    assert value(page, "gateway_credits_settled_total", team="studio", model=MODEL) == 2 * rig.calls
    assert value(page, "gateway_workers", state="answered") == 2
    assert value(page, "gateway_workers", state="silent") == 0
    assert value(page, "gateway_build_info") == 2
    assert value(page, "gateway_ledger_batch_size_sum", verb="place") == rig.calls


@needs_prometheus
def test_prometheus_takes_the_rules_and_answers_every_query(rig: Rig, tmp_path: Path) -> None:
    assert prometheus_binary is not None
    assert promtool_binary is not None
    with prometheus(prometheus_binary, rig.gateway.process.port, tmp_path) as base:
        configuration = tmp_path / "prometheus.yml"
        checked = subprocess.run([promtool_binary, "check", "config", configuration], capture_output=True)
        assert checked.returncode == 0, checked.stderr

        def ask(expression: str) -> list[Any]:
            answer = httpx.get(f"{base}/api/v1/query", params={"query": expression})
            assert answer.status_code == 200, f"{expression}: {answer.text}"
            found: list[Any] = answer.json()["data"]["result"]
            return found

        # Two scrapes: only then there are rates.
        eventually(lambda: ask("sum(count_over_time(gateway_workers[1m])) >= 4"), 10, every=0.2)
        assert ask('sum(gateway_holds_total{event="placed"})')[0]["value"][1] == str(rig.calls)
        assert len(ask('count by (worker) (process_start_time_seconds{job="pixapi-gateway"})')) == 2
        silent = [query.panel for query in panel_queries() if not ask(query.at_once())]
        assert set(silent) <= QUIET
        for rule in alert_rules():
            ask(rule["expr"])
        loaded = httpx.get(f"{base}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert [rule["name"] for rule in loaded] == [rule["alert"] for rule in alert_rules()]
        assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}
        assert not {rule["name"] for rule in loaded if rule["state"] == "firing"} & FALSE_ALARMS


@pytest.mark.long
def test_a_replaced_worker_keeps_its_number_and_begins_again(rig: Rig) -> None:
    before = placed(rig.page())
    parent = psutil.Process(rig.gateway.process.child.pid)
    victim = next(child for child in parent.children() if "spawn_main" in " ".join(child.cmdline()))
    victim.kill()

    def gone() -> bool:
        return value(rig.page(), "gateway_workers", state="silent") == 1

    def back() -> str | None:
        page = rig.page()
        return page if value(page, "gateway_workers", state="answered") == 2 else None

    eventually(gone, every=0.2)
    after = placed(eventually(back, 40, every=0.3))
    assert len(after) == 1
    assert after.items() <= before.items()


# Nothing to show while nothing went wrong, or before a minute of rates has passed.
QUIET = {
    "Failures",
    "Refused paid calls",
    "Time's verdicts and odd costs",
    "Polls and lists, by where the answer came from",
    "Open tasks",
    "Redis",
    "Revoked keys forgotten, 99 %",
}
FALSE_ALARMS = {"GatewayGone", "GatewayWorkersSilent", "GatewayNoUpstreamKey", "GatewayUnknownHolds"}


@contextlib.contextmanager
def prometheus(binary: str, gateway_port: int, folder: Path) -> Iterator[str]:
    """A Prometheus of the shipped example: only places and intervals are those of this test."""
    (folder / "token").write_text(TOKEN)
    example = yaml.safe_load((ROOT / SCRAPES).read_text("utf-8"))
    example["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    example["rule_files"] = [str(ROOT / RULES)]
    (job,) = example["scrape_configs"]
    job["authorization"]["credentials_file"] = str(folder / "token")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{gateway_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(example))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        base = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert child.poll() is None, log.read_text("utf-8")
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{base}/-/ready").status_code == 200
            return False

        eventually(ready, 10, every=0.05)
        yield base
    finally:
        child.terminate()
        child.wait(10)
