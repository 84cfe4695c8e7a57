"""Uploads and the sandbox as a process of its own."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.images import draw_png
from tests.unit.sandbox.conftest import KEY, Sandbox

EDIT = {"model": "nano-banana-pro", "prompt": "warmer"}


@pytest.mark.parametrize("name", ["image", "image[]"])
@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/async/images/edits"])
def test_edits_take_files_and_journal_their_parts(sandbox: Sandbox, path: str, name: str) -> None:
    pictures = [draw_png(seed, 16, 16) for seed in (1, 2)]
    files = [(name, (f"p{i}.png", picture, "image/png")) for i, picture in enumerate(pictures)]
    request = sandbox.client.build_request("POST", path, data=EDIT | {"n": "2"}, files=files)
    body = request.read()
    response = sandbox.client.send(request)
    assert response.status_code == 200, response.text
    (entry,) = sandbox.journal()
    parts = [(part["name"], part["filename"], part["content_type"], part["size"]) for part in entry["parts"]]
    assert parts[:3] == [("model", None, None, 15), ("prompt", None, None, 6), ("n", None, None, 1)]
    assert parts[3:] == [(name, f"p{i}.png", "image/png", len(p)) for i, p in enumerate(pictures)]
    digests = [part["sha256"] for part in entry["parts"][3:]]
    assert digests == [hashlib.sha256(picture).hexdigest() for picture in pictures]
    assert entry["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert entry["body_length"] == len(body)
    assert entry["executed"]


def test_edits_take_image_urls_as_json_and_need_an_image(sandbox: Sandbox) -> None:
    for image in ("https://example.com/a.png", ["https://example.com/a.png", "data:image/png;base64,AA=="]):
        assert sandbox.post("/v1/images/edits", image=image).status_code == 200
    assert sandbox.post("/v1/images/edits").status_code == 400
    assert sandbox.post("/v1/images/edits", image=[]).status_code == 400
    empty = {"image": ("a.png", b"", "image/png")}
    assert sandbox.client.post("/v1/images/edits", data=EDIT, files=empty).status_code == 400


@pytest.fixture
def process() -> Iterator[tuple[int, str]]:
    """A sandbox in a process of its own: its id and base URL."""
    command = [sys.executable, "-m", "gateway.sandbox", "--port", "0", "--speed", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            match = re.fullmatch(r"Pixapi sandbox ready on (http://127\.0\.0\.1:[1-9][0-9]*)\n", line)
            assert match is not None, line
            yield started.pid, match[1]
        finally:
            started.terminate()
        assert started.stdout.read() == ""


def peak_kib(pid: int) -> int:
    """The most memory a process has held so far, in KiB."""
    match = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_large_uploads_are_not_kept_in_memory(process: tuple[int, str]) -> None:
    pid, url = process
    size, piece = 64 * 1024 * 1024, bytes(range(256)) * 4096
    head = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nnano-banana\r\n'
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nwarmer\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    )

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(size // len(piece)):
            yield piece
        yield b"\r\n--b--\r\n"

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=b"}
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
    before = peak_kib(pid)
    response = httpx.post(f"{url}/v1/images/edits", content=body(), headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    assert peak_kib(pid) - before < 16 * 1024
    (_, entry) = httpx.get(f"{url}/sandbox/journal").json()["data"]
    assert entry["parts"][2]["size"] == size


def test_stopping_while_a_call_hangs_answers_nothing(process: tuple[int, str]) -> None:
    pid, url = process
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "veo", "prompt": "[fault:hang]"}
    with httpx.Client(base_url=url, headers=headers, timeout=10) as client, ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(client.post, "/v1/images/generations", json=body)
        deadline = time.monotonic() + 5
        while not httpx.get(f"{url}/sandbox/counters").json()["data"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            hanging.result(timeout=10)
