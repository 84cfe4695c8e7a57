"""A sandbox on a real socket, in a thread, shared by the tests and emptied before each."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvloop

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import address, open_server, open_socket

KEY = "sk_demo_0123456789"


@dataclass(frozen=True)
class Sandbox:
    """The server's address and a client that carries the demo account's key."""

    url: str
    client: httpx.Client

    def post(self, path: str, key: str = KEY, **fields: Any) -> httpx.Response:
        """A JSON call with a cheap image model unless the fields say otherwise."""
        body = {"model": "gpt-image-1.5", "prompt": "a cup"} | fields
        return self.client.post(path, json=body, headers={"Authorization": f"Bearer {key}"})

    def generate(self, prompt: str = "a cup", **fields: Any) -> httpx.Response:
        """A synchronous image call."""
        return self.post("/v1/images/generations", prompt=prompt, **fields)

    def submit(self, prompt: str = "a cup", **fields: Any) -> str:
        """The id of a new image task."""
        response = self.post("/v1/async/images/generations", prompt=prompt, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def read(self, task_id: str, key: str = KEY, **options: Any) -> httpx.Response:
        """One read of a task."""
        return self.client.get(f"/v1/tasks/{task_id}", headers={"Authorization": f"Bearer {key}"}, **options)

    def ended(self, task_id: str) -> dict[str, Any]:
        """The first read of a task that says completed or failed."""
        return self.until(task_id, lambda task: task["status"] in ("completed", "failed"))

    def until(self, task_id: str, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first read of a task that `found` accepts, within five seconds."""
        deadline = time.monotonic() + 5
        while True:
            task: dict[str, Any] = self.read(task_id).json()
            if found(task):
                return task
            assert time.monotonic() < deadline, task
            time.sleep(0.01)

    def counters(self) -> dict[str, Any]:
        """The counters of the only key that was used."""
        (counter,) = self.client.get("/sandbox/counters").json()["data"]
        return dict(counter)

    def journal(self, limit: int = 100) -> list[dict[str, Any]]:
        """The journal, the oldest entry first."""
        return list(self.client.get("/sandbox/journal", params={"limit": limit}).json()["data"])

    def control(self, path: str, /, **body: Any) -> dict[str, Any]:
        """A successful POST of the control API."""
        response = self.client.post(f"/sandbox/{path}", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    listener = open_socket("127.0.0.1", 0)
    server = open_server(SandboxOptions(speed=20))

    def serve() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=serve, name="sandbox")
    thread.start()
    url = address(listener)
    with httpx.Client(base_url=url, timeout=10, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield Sandbox(url, client)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    running_sandbox.client.post("/sandbox/reset")
    return running_sandbox
