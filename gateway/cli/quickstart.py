"""`pixapi-gateway quickstart`: the whole gateway on this machine, with nothing installed but Python.

One folder holds everything: an embedded Postgres and Valkey, generated secrets (mode 0600), a demo team with a key.
A second start finds them again. Upstream is the built-in sandbox, or the real Pixapi when PIXAPI_KEY is set.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway import __version__
from gateway.cli.demo import Demo, prepare_demo
from gateway.cli.quickstart_children import Children
from gateway.cli.quickstart_files import (
    ENVIRONMENT_FILE,
    Secrets,
    load_secrets,
    spool_folder,
    write_environment,
)
from gateway.cli.serve import serve
from gateway.db import migrate
from gateway.settings import Settings, SettingsError, load

DRAIN_SECONDS = 5
PIXAPI = "https://api.pixapi.ai"


@dataclass(frozen=True, slots=True)
class Options:
    """`port` None takes the settings' (8080); `as_json` prints one line for programs instead of the page."""

    data: Path
    port: int | None = None
    as_json: bool = False
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the demo's calls go and with which key."""

    base_url: str
    label: str
    secret: str


def quickstart(options: Options, children: Children, environ: Mapping[str, str] = os.environ) -> int:
    """Prepares the demo on the children's databases and serves until a signal; the exit code."""
    secrets = load_secrets(options.data)
    own = secrets.environment() | {
        "GATEWAY_DATABASE__URL": children.servers.database_url,
        "GATEWAY_REDIS__URL": children.servers.redis_url,
    }
    upstream = _upstream(children, environ, secrets)
    try:
        settings = _settings(options, environ, own, upstream)
    except SettingsError as error:
        print(f"The settings cannot be used:\n{error}", file=sys.stderr)
        return 2
    write_environment(options.data, own | {"GATEWAY_UPSTREAM__BASE_URL": upstream.base_url})
    migrate.upgrade(settings.database.url)
    demo = prepare_demo(settings, upstream.label, upstream.secret, secrets.team_key)
    if demo.team_key != secrets.team_key:
        secrets.with_team_key(demo.team_key).save(options.data)
    if children.sandbox is not None:
        children.sandbox.wait_ready()

    def announce(port: int) -> None:
        started = Started(f"http://127.0.0.1:{port}", secrets.admin_token, demo, upstream)
        print(started.as_json() if options.as_json else started.page(options.data), flush=True)

    return serve(settings, announce)


def _settings(
    options: Options, environ: Mapping[str, str], own: Mapping[str, str], upstream: Upstream
) -> Settings:
    """The user's own settings hold where the quickstart does not bring its own."""
    replaced = {name.removesuffix("_FILE") for name in own}
    kept = {name: value for name, value in environ.items() if name.removesuffix("_FILE") not in replaced}
    logs = {} if "GATEWAY_LOG__FORMAT" in environ else {"format": "text"}
    spool = {} if "GATEWAY_SERVER__SPOOL_DIR" in environ else {"spool_dir": str(spool_folder(options.data))}
    return load(
        options.config,
        {**kept, **own},
        {
            "server": {"port": options.port, "drain_seconds": DRAIN_SECONDS, "workers": 1, **spool},
            "upstream": {"base_url": upstream.base_url},
            "log": logs,
        },
    )


def _upstream(children: Children, environ: Mapping[str, str], secrets: Secrets) -> Upstream:
    if children.sandbox is not None:
        return Upstream(children.sandbox.url, "sandbox", secrets.sandbox_key)
    return Upstream(
        environ.get("GATEWAY_UPSTREAM__BASE_URL") or PIXAPI, "pixapi", environ["PIXAPI_KEY"].strip()
    )


@dataclass(frozen=True, slots=True)
class Started:
    """What a newcomer is told once requests are answered."""

    base: str
    admin_token: str
    demo: Demo
    upstream: Upstream

    @property
    def curl(self) -> str:
        body = {
            "model": "gemini-3-pro-image-preview",
            "prompt": "A cinematic product photo of a ceramic coffee cup",
            "n": 1,
            "size": "1024x1024",
        }
        return (
            f"curl {self.base}/v1/images/generations -H 'Authorization: Bearer {self.demo.team_key}' "
            f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
        )

    def as_json(self) -> str:
        return json.dumps(
            {
                "base_url": self.base,  # as Pixapi's own: the paths begin with /v1
                "dashboard_url": f"{self.base}/admin/",
                "admin_token": self.admin_token,
                "team_key": self.demo.team_key,
                "curl": self.curl,
            }
        )

    def page(self, data: Path) -> str:
        """Fits a screen of 80 columns and 30 lines."""
        simulated = self.upstream.label == "sandbox"
        upstream = f"a simulated Pixapi ({self.upstream.base_url})" if simulated else self.upstream.base_url
        own = Path(sys.executable).with_name("pixapi-gateway")
        command = shlex.quote(os.path.relpath(own)) if own.exists() else "pixapi-gateway"
        real = "Real pictures: start this with PIXAPI_KEY=sk_… in the environment."
        spend = "Every call spends credits of your Pixapi account; the team's limit holds it."
        return f"""
Pixapi gateway {__version__} serves {upstream}.

  base URL     {self.base}   (for OpenAI SDKs: {self.base}/v1)
  team key     {self.demo.team_key}
  dashboard    {self.base}/admin/
  admin token  {self.admin_token}

Make a picture as team demo, which has {self.demo.limit} credits a month:

{self.curl}

Then try:
  1. In your code: base_url={self.base}/v1, api_key=<the team key>
  2. Another team with a limit of its own, from a second terminal:
       set -a; . {shlex.quote(str(data / ENVIRONMENT_FILE))}; set +a
       {command} teams create --name Studio --period month --limit 200
       {command} keys issue --team studio --name laptop
  3. What it has cost, and whether the ledger adds up:
       {command} usage --by team,model && {command} ledger verify

{real if simulated else spend}
Data and secrets stay in {data}/. Ctrl-C stops everything.
"""
