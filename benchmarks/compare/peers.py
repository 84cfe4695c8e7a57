"""Portkey and LiteLLM: installed into a cache folder when asked to, else taken from there or left out aloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from benchmarks.compare.children import Child, free_port, listens
from benchmarks.compare.nginx import MODEL
from benchmarks.compare.targets import LITELLM, PORTKEY, Target, UnavailableError

_START_SERVER = Path("node_modules/@portkey-ai/gateway/build/start-server.js")
_MASTER_KEY = "sk-bench-master"
_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk_bench_1}}
    model_info: {{mode: image_generation}}
litellm_settings: {{telemetry: false, request_timeout: 600}}
general_settings:
  master_key: {key}
  pass_through_endpoints:
    - {{path: "/v1/tasks", target: "http://127.0.0.1:{upstream}/v1/tasks", include_subpath: true}}
"""


def cache() -> Path:
    """Where peers are installed: below $XDG_CACHE_HOME, else below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pixapi-gateway-bench"


def install() -> None:
    """Both peers, by npm and pip as they are set up here; raises CalledProcessError."""
    folder = cache() / PORTKEY
    folder.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        print("SKIPPED portkey: npm was not found on PATH", flush=True)
    else:
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@portkey-ai/gateway"],
            check=True,
        )
    subprocess.run([sys.executable, "-m", "venv", str(cache() / LITELLM)], check=True)
    subprocess.run([str(cache() / LITELLM / "bin" / "pip"), "install", "-q", "litellm[proxy]"], check=True)


def portkey(folder: Path, upstream: int) -> Target:
    """Portkey's open-source gateway: provider and stub by headers, no keys, no accounting."""
    script, node = cache() / PORTKEY / _START_SERVER, shutil.which("node")
    if node is None or not script.exists():
        raise UnavailableError("not installed; --install does it (npm)")
    port = free_port()
    child = Child([node, script, "--headless", f"--port={port}"], folder / "portkey.log")
    child.wait_until(lambda: listens(port))
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    return Target(
        name=PORTKEY,
        base=f"http://127.0.0.1:{port}",
        pid=child.pid,
        headers=headers,
        stop=child.stop,
    )


def litellm(folder: Path, upstream: int) -> Target:
    """LiteLLM's proxy: one worker, a master key, no database: no keys, budgets or spend."""
    program = cache() / LITELLM / "bin" / "litellm"
    if not program.exists():
        raise UnavailableError("not installed; --install does it (pip, into a venv of its own)")
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, upstream=upstream, key=_MASTER_KEY))
    own = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1"}
    command: list[str | Path] = [
        program,
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    child = Child(command, folder / "litellm.log", own)
    try:
        child.wait_until(lambda: _lists_models(port), every=0.05)
    except BaseException:
        child.stop()
        raise
    return Target(
        name=LITELLM, base=f"http://127.0.0.1:{port}", pid=child.pid, token=_MASTER_KEY, stop=child.stop
    )


def _lists_models(port: int) -> bool:
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/v1/models",
            headers={"authorization": f"Bearer {_MASTER_KEY}"},
            trust_env=False,
        )
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    manifest = cache() / PORTKEY / _START_SERVER.parents[1] / "package.json"
    if manifest.exists():
        found["Portkey"] = str(json.loads(manifest.read_text())["version"])
    for folder in (cache() / LITELLM).glob("lib/python*/site-packages/litellm-*.dist-info"):
        found["LiteLLM"] = folder.name.removeprefix("litellm-").removesuffix(".dist-info")
    return found
