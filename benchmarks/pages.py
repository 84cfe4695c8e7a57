"""Every page of the dashboard on many rows: the application in this process, asked by a signed-in browser.

A `*` marks what takes longer than promised. What is measured is the answer whole: session, reads, rendering.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import make_url

from benchmarks import rows
from benchmarks.ledger import database
from benchmarks.plans import recorded
from benchmarks.rows import Sizes
from gateway.app import build_app
from gateway.composition import build
from gateway.settings import load

PROMISED = 200.0  # milliseconds
CONFIG = Path(__file__).parents[1] / "config"
PAGES = (
    "/",
    "/?by=model",
    "/?by=key",
    "/?range=30d&by=model&cumulative=1",
    "/?range=90d",
    "/usage",
    "/usage?by_model=1",
    "/teams",
    "/teams/team-0",
    "/teams/team-7?range=30d&by=key",
    "/keys",
    "/keys?state=active",
    "/keys/k000000001",
    "/requests",
    "/requests?team=team-0",
    "/requests?model=model-11",
    "/requests?state=unknown",
    "/requests/req_77",
    "/requests/refused_77",
    "/tasks",
    "/tasks?ended=false",
    "/tasks/task_77",
    "/holds",
    "/holds?state=held",
    "/upstream-keys",
    "/prices",
    "/alerts",
    "/alerts/deliveries",
    "/audit",
    "/access",
    "/connect",
)


async def measure(url: str, wanted: Sequence[str], times: int) -> list[tuple[str, list[float], int]]:
    """Each page so many times, one after the other, and how many statements it read with; printed as it is known."""
    token = secrets.token_urlsafe(32)
    runtime = build(
        load(
            CONFIG,
            {
                "GATEWAY_DATABASE__URL": url,
                "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
                "GATEWAY_SECRETS__MASTER_KEYS": secrets.token_urlsafe(32),
                "GATEWAY_SECRETS__KEY_PEPPER": secrets.token_urlsafe(32),
                "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": token,
                "GATEWAY_DATABASE__STATEMENT_TIMEOUT": "30",
            },
        )
    )
    found = []
    transport = httpx.ASGITransport(build_app(runtime))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8080", timeout=60
    ) as browser:
        signed_in = await browser.post("/admin/login", data={"token": token})
        assert signed_in.status_code == 303, signed_in.text
        for path in wanted:
            with recorded(runtime.admin_database) as statements:
                await _once(browser, path)
            took = [await _once(browser, path) for _ in range(times)]
            found.append((path, took, len(statements)))
            print(line(*found[-1]), flush=True)
    await runtime.database.close()
    await runtime.admin_database.close()
    await runtime.cache.close()
    return found


async def _once(browser: httpx.AsyncClient, path: str) -> float:
    began = time.perf_counter()
    answer = await browser.get(f"/admin{path}")
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"{path}: {answer.status_code}")
    return took


def line(path: str, took: Sequence[float], statements: int) -> str:
    """A line of the table."""
    slow = " *" if statistics.median(took) > PROMISED else ""
    return f"{path:<44}{statistics.median(took):>9.1f}{max(took):>9.1f}{statements:>7}{slow}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pages", description=__doc__)
    parser.add_argument("--holds", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=10, help="each page is asked for")
    parser.add_argument("--only", default="", help="paths that begin so")
    options = parser.parse_args(arguments)
    sizes = Sizes(holds=options.holds, tasks=options.holds * 3 // 10)
    with database() as url:
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:
            _fill(connection, sizes)
        asyncio.run(rows.sum_days(url))
        print(f"{'':<44}{'p50 ms':>9}{'max ms':>9}{'reads':>7}")
        wanted = [path for path in PAGES if path.startswith(options.only)]
        found = asyncio.run(measure(url, wanted, options.times))
    slow = sum(statistics.median(took) > PROMISED for _, took, _ in found)
    print(f"{len(found)} pages, {slow} of them slower than {PROMISED:.0f} ms")


def _fill(connection: psycopg.Connection[Any], sizes: Sizes) -> None:
    began = time.perf_counter()
    rows.fill(connection, sizes, lambda name: print(f"making {name} …", flush=True))
    print(f"{sizes} in {time.perf_counter() - began:.0f} s", flush=True)
