"""`pixapi-gateway quickstart` as its user meets it: one command, a line to paste, Ctrl-C, and all of it again."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import socket
import stat
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import eventually
from tests.e2e.pictures import fetch, png_size
from tests.e2e.started_quickstart import Started, alive, bash, data_folder, free_port, started

FIRST_SECONDS = 20.0  # ten on an idle machine, with room for a busy one
SECOND_SECONDS = 10.0  # three on an idle machine
STOP_SECONDS = 7.0
DRAIN_SECONDS = 5.0  # what a call under way may add
PRINTED = {"base_url", "dashboard_url", "admin_token", "team_key", "curl"}


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder / "data"


def picture(curl: str) -> str:
    """The image's address in the answer to the pasted line; the image opens."""
    url = str(json.loads(bash(curl))["data"][0]["url"])
    assert png_size(fetch(url)) == (256, 256)
    return url


def admin(printed: dict[str, Any], method: str, path: str, **options: Any) -> Any:
    """An admin API call with the printed token."""
    address = f"{printed['base_url']}/admin/api{path}"
    headers = {"authorization": f"Bearer {printed['admin_token']}"}
    answer = httpx.request(method, address, headers=headers, timeout=30, trust_env=False, **options)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.mark.long
def test_first_start_and_later_ones(data: Path) -> None:
    port = free_port()
    printed, url = first_start(data, port)
    with started(data, "--json", port=port) as run:
        assert run.printed() == printed
        print(f"second start: {run.seconds:.1f} s")
        assert run.seconds < SECOND_SECONDS
        picture(printed["curl"])
        assert fetch(url)  # links in earlier answers still open
        family = run.family()
        assert run.stop(signal.SIGKILL) == -signal.SIGKILL
    if sys.platform == "linux":  # elsewhere nothing ends them with us
        eventually(lambda: not alive(family))
    with started(data, "--json", port=port) as run:
        assert run.printed() == printed
        picture(printed["curl"])
        assert {team["slug"] for team in admin(printed, "GET", "/teams")["data"]} == {"demo", "studio"}


def first_start(data: Path, port: int) -> tuple[dict[str, Any], str]:
    """What it printed, and the address of a picture it made."""
    with started(data, "--json", port=port) as run:
        printed = run.printed()
        print(f"first start: {run.seconds:.1f} s to the printed line")
        assert run.seconds < FIRST_SECONDS
        assert set(printed) == PRINTED
        assert printed["base_url"] == f"http://127.0.0.1:{run.port}"
        url = picture(printed["curl"])
        print(f"first start: {time.monotonic() - run.began:.1f} s to the first picture")
        dashboard = httpx.get(printed["dashboard_url"], follow_redirects=True, trust_env=False)
        assert dashboard.status_code == 200
        teams = admin(printed, "GET", "/teams")["data"]
        assert [team["slug"] for team in teams] == ["demo"]
        files = [path for path in data.iterdir() if path.is_file()]
        assert {"secrets.json", "env"} <= {path.name for path in files}
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
            path.name: 0o600 for path in files
        }
        assert stat.S_IMODE((data / "spool").stat().st_mode) == 0o700
        assert printed["team_key"] not in run.stderr()
        assert printed["admin_token"] not in run.stderr()
        admin(printed, "POST", "/teams", json={"name": "Studio", "unlimited": True})
        second_in_folder(data)
        assert run.stop(signal.SIGINT) == 0
        print(f"stopped in {run.stop_seconds:.1f} s")
        assert run.stop_seconds < STOP_SECONDS
    assert run.left() == []
    assert len(run.stdout().splitlines()) == 1
    return printed, url


def second_in_folder(data: Path) -> None:
    """Another one in the same folder says whose it is, and leaves the first alone."""
    with started(data, "--json") as other:
        assert other.wait() == 1
        assert "in use by process" in other.stderr()


@pytest.mark.long
def test_page(data: Path) -> None:
    with started(data) as run:
        page = run.printed_text("Ctrl-C")
        shown = re.sub(r"\S*/pixapi-gateway ", ".venv/bin/pixapi-gateway ", page)  # as after `make run`
        rows = [row for line in shown.splitlines() for row in textwrap.wrap(line, 80) or [""]]
        print(f"the page has {len(page.splitlines())} lines, {len(rows)} rows at 80 columns")
        assert len(rows) <= 30
        assert re.findall(r"^  ([123])\. ", page, re.MULTILINE) == ["1", "2", "3"]
        (curl,) = [line for line in page.splitlines() if line.startswith("curl ")]
        picture(curl)
        own_team(data, page, run)
        (admin_token,) = re.findall(r"pxa_\w+", page)
        with hanging_call(curl, admin_token) as answers:
            assert run.stop(signal.SIGINT) == 0
        assert [answer.json()["error"]["type"] for answer in answers] == ["upstream_outcome_unknown"]
        print(f"stopped in {run.stop_seconds:.1f} s with a call that hangs")
        assert run.stop_seconds < STOP_SECONDS + DRAIN_SECONDS
    assert run.left() == []


def own_team(data: Path, page: str, run: Started) -> None:
    """The page's commands for another team and for what it has cost, pasted into a second terminal."""
    lines = re.findall(r"^ {7}(\S.*)$", page, re.MULTILINE)
    assert len(lines) == 4
    assert str(data / "env") in lines[0]
    own_command = f"{shlex.quote(sys.executable)} -m gateway"
    *team, cost = [re.sub(r"\S*pixapi-gateway (?=\w)", f"{own_command} ", line) for line in lines]
    issued = json.loads(bash("\n".join([*team[:-1], f"{team[-1]} --json"])).splitlines()[-1])
    assert re.search(r"\bdemo\b.*\bgemini-", bash(f"{team[0]}\n{cost}"))
    account = httpx.get(
        f"http://127.0.0.1:{run.port}/gateway/account",
        headers={"authorization": f"Bearer {issued['secret']}"},
        trust_env=False,
    ).raise_for_status()
    assert account.json()["team"]["slug"] == "studio"


@contextlib.contextmanager
def hanging_call(curl: str, admin_token: str) -> Iterator[list[httpx.Response]]:
    """Meanwhile a paid call that Pixapi never answers is under way; afterwards the gateway's answer is there."""
    words = shlex.split(curl)
    url, key = words[1], words[3].removeprefix("Authorization: ")
    order = json.loads(words[-1]) | {"prompt": "Nothing comes [fault:hang]"}

    answers: list[httpx.Response] = []

    def call() -> None:
        answers.append(
            httpx.post(url, json=order, headers={"authorization": key}, timeout=30, trust_env=False)
        )

    def under_way() -> bool:
        metrics = httpx.get(
            url.replace("/v1/images/generations", "/metrics"),
            headers={"authorization": f"Bearer {admin_token}"},
            trust_env=False,
        ).raise_for_status()
        return "gateway_paid_calls_in_flight 1.0" in metrics.text

    thread = threading.Thread(target=call)
    thread.start()
    try:
        eventually(under_way)
        yield answers
    finally:
        thread.join()


@pytest.mark.long
def test_port_in_use(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(data, "--json", port=port) as run:
            assert run.wait() == 1
    assert f"port {port}" in run.stderr()
    assert "--port" in run.stderr()
    assert "Traceback" not in run.stderr()
    assert run.stdout() == ""
    assert run.left() == []


def test_ctrl_c_while_starting(data: Path) -> None:
    with started(data) as run:
        eventually(lambda: run.runs("bin/postgres"), 30)
        assert run.stop(signal.SIGINT) == 0
        assert run.stop_seconds < STOP_SECONDS
    assert run.stdout() == ""
    assert "Traceback" not in run.stderr()
    assert run.left() == []


@pytest.mark.long
def test_real_key_goes_to_the_given_pixapi(data: Path) -> None:
    secret = "sk_acct_e07d52b18c4a4d8fa1"
    with (
        harness.sandbox() as pixapi,
        started(data, "--json", PIXAPI_KEY=secret, GATEWAY_UPSTREAM__BASE_URL=pixapi.base) as run,
    ):
        printed = run.printed()
        assert picture(printed["curl"]).startswith(pixapi.base)
        journal = httpx.get(f"{pixapi.base}/sandbox/journal", trust_env=False).json()["data"]
        assert {entry["key_last4"] for entry in journal} == {secret[-4:]}
        assert run.runs("bin/postgres")
        assert not run.runs("gateway.sandbox")
        assert run.stop(signal.SIGTERM) == 0
        kept = [path.read_text() for path in data.iterdir() if path.is_file()]
        assert not any(secret in text for text in [run.stdout(), run.stderr(), *kept])
