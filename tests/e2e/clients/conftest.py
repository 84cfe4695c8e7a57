"""One gateway in front of a sandbox for every client: a client changes its base URL and its key, nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.images import draw_png
from tests.e2e import harness
from tests.e2e.harness import Gateway
from tests.servers import create_database, drop_database

UPSTREAM_SECRET = "sk_acct_4f9d1c7ab2e84d50a6c3"


@dataclass(frozen=True)
class Stage:
    """The gateway, the simulated Pixapi's control API, and a team's key."""

    gateway: Gateway
    pixapi: httpx.Client = field(repr=False)
    team: str
    key: str

    @property
    def base_url(self) -> str:
        """What goes where an SDK's default base URL was."""
        return f"{self.gateway.base}/v1"

    def openai(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """The official SDK with base URL and key changed. The caller closes it."""
        return openai.OpenAI(base_url=self.base_url, api_key=key or self.key, **options)

    def sent(self, prompt: str) -> list[dict[str, Any]]:
        """What reached Pixapi with this prompt, as JSON or as a form, oldest first."""
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        entries = self.pixapi.get("/sandbox/journal?limit=1000").raise_for_status().json()["data"]
        return [
            entry
            for entry in entries
            if prompt in (entry["body_text"] or "")
            or any(part["name"] == "prompt" and part["sha256"] == digest for part in entry["parts"])
        ]

    def arm(self, marker: str) -> None:
        """A fault for the next paid call."""
        self.pixapi.post("/sandbox/faults", json={"marker": marker, "times": 1}).raise_for_status()


@pytest.fixture(scope="session")
def stage(servers: tuple[str, str], migrated_template: str, redis_url: str) -> Iterator[Stage]:
    name = f"clients_{os.getpid()}"
    database_url = create_database(servers[0], name, template=migrated_template)
    with (
        pytest.MonkeyPatch.context() as patch,
        harness.sandbox() as sandbox,
        httpx.Client(base_url=sandbox.base, timeout=30, trust_env=False) as pixapi,
        harness.gateway(database_url, redis_url, sandbox.base) as gateway,
    ):
        patch.setenv("NO_PROXY", "127.0.0.1")  # the clients are used as they come, and they obey HTTP_PROXY
        gateway.upstream_key(UPSTREAM_SECRET, "first", account="acct")
        team = gateway.team("Clients")["slug"]
        yield Stage(gateway, pixapi, team, gateway.key(team))
    drop_database(servers[0], name)


@pytest.fixture
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    """The official Python SDK as a team uses it, with its retries."""
    with stage.openai() as found:
        yield found


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Three different PNG files."""
    return [draw_png(seed, 48, 32) for seed in (1, 2, 3)]
