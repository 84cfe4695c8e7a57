"""docker-compose.yml: what compose accepts, with settings that exist and secrets that somebody made."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.settings import load
from scripts.replay import compose
from tests.deploy.schema import compose_problems
from tests.docs.pages import ROOT, page

FILE = ROOT / "docker-compose.yml"
EXACT = re.compile(r"(v?\d+\.\d+(\.\d+)?|local)")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the script of `make env`."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "make_env.sh", tmp_path / "scripts")
    return tmp_path


def make_env(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [project / "scripts" / "make_env.sh", *arguments], capture_output=True, text=True, check=False
    )


def made(project: Path, *arguments: str) -> dict[str, str]:
    assert make_env(project, *arguments).returncode == 0
    return compose.read_env((project / ".env").read_text("utf-8"))


@pytest.mark.parametrize("arguments", [(), ("sandbox",)])
def test_the_specification_accepts_it(project: Path, arguments: tuple[str, ...]) -> None:
    assert compose_problems(compose.load(FILE, made(project, *arguments))) == []


def test_a_misspelt_key_would_be_found(project: Path) -> None:
    document = compose.load(FILE, made(project))
    document["services"]["gateway"]["stop_grace_periode"] = "1s"
    assert "stop_grace_periode" in " ".join(compose_problems(document))


def test_without_secrets_it_says_what_to_run() -> None:
    with pytest.raises(compose.ComposeError, match="run make env"):
        compose.load(FILE, {})


def test_make_env_never_overwrites(project: Path) -> None:
    first = made(project)
    again = make_env(project)
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert compose.read_env((project / ".env").read_text("utf-8")) == first
    assert (project / ".env").stat().st_mode & 0o777 == 0o600


def test_secrets_are_fresh_and_good_enough(project: Path, tmp_path: Path) -> None:
    """The gateway would start with what compose hands it."""
    environ = made(project, "sandbox")
    secret = {name: value for name, value in environ.items() if re.fullmatch(r"[0-9a-f]{64}", value)}
    assert len(set(secret.values())) == 6
    service = compose.load(FILE, environ)["services"]["gateway"]
    settings = load(ROOT / "config", compose.environment(service, environ))
    assert settings.upstream.base_url == "http://sandbox:8090"


def test_the_example_names_what_make_env_writes_and_compose_reads(project: Path) -> None:
    example = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", page(".env.example"), re.MULTILINE))
    text = page("docker-compose.yml")
    read = set(re.findall(r"\$\{(\w+)", text)) | set(
        re.findall(r"^\s+environment: (\w+)$", text, re.MULTILINE)
    )
    handed_on = set(re.findall(r"^  (GATEWAY_\w+):$", text, re.MULTILINE))
    own = set(re.findall(r"\$\$\{(\w+)", text))
    assert set(made(project, "sandbox")) <= example
    assert example == (read - own) | handed_on | {"COMPOSE_PROFILES"}


def test_every_image_has_an_exact_version(project: Path) -> None:
    for service in services(project).values():
        assert EXACT.fullmatch(service["image"].rpartition(":")[2]), service["image"]


def test_dependencies_wait_until_they_are_healthy(project: Path) -> None:
    found = services(project)
    waits = {
        (name, other, how["condition"])
        for name, service in found.items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert ("gateway", "migrate", "service_completed_successfully") in waits
    assert len(waits) >= 6
    for _, other, condition in waits:
        if condition == "service_healthy" and other != "gateway":  # the gateway's is the image's
            assert found[other]["healthcheck"]["test"][0] == "CMD"


def test_nothing_listens_beyond_this_machine(project: Path) -> None:
    ports = [port for service in services(project).values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_mounted_files_and_volumes_exist(project: Path) -> None:
    document = compose.load(FILE, made(project))
    for service in document["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith("./") else source in document["volumes"]
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in document["secrets"]


def test_the_sandbox_is_what_its_switch_says(project: Path) -> None:
    found = services(project, "sandbox")
    assert found["sandbox"]["profiles"] == found["demo"]["profiles"] == ["sandbox"]
    assert "profiles" not in found["gateway"]
    assert "http://sandbox:8090" in found["demo"]["command"][0]
    assert found["sandbox"]["command"][4] == "8090"


def test_prometheus_and_grafana_find_what_they_are_given(project: Path) -> None:
    found = services(project)
    scrapes = yaml.safe_load(page("deploy/monitoring/prometheus.yml"))["scrape_configs"][0]
    (secret,) = found["prometheus"]["secrets"]
    assert secret["target"] == scrapes["authorization"]["credentials_file"]
    assert scrapes["static_configs"][0]["targets"] == ["gateway:8080"]
    mounts = dict(mount.split(":")[:2] for mount in found["grafana"]["volumes"])
    (source,) = yaml.safe_load(page("deploy/monitoring/grafana-datasource.yml"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"], "the dashboard's variable takes the default"
    (provider,) = yaml.safe_load(page("deploy/monitoring/grafana-provider.yml"))["providers"]
    shown = mounts["./deploy/monitoring/grafana-dashboard.json"]
    assert shown.rpartition("/")[0] == provider["options"]["path"]
    assert found["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == shown


def test_paid_calls_are_not_cut_off(project: Path) -> None:
    settings = load(ROOT / "config", compose.environment(services(project)["gateway"], made_again(project)))
    grace = compose.seconds(services(project)["gateway"]["stop_grace_period"])
    assert grace >= settings.server.drain_seconds + 5 > settings.upstream.sync_timeout


def test_postgres_takes_the_connections_of_as_many_workers_as_the_example_allows(project: Path) -> None:
    found = re.search(r"for each core that it may use, up to (\d+)", page(".env.example"))
    assert found
    most = {"GATEWAY_SERVER__WORKERS": found[1]}
    settings = load(
        ROOT / "config", compose.environment(services(project)["gateway"], made_again(project)) | most
    )
    program, *options = services(project)["postgres"]["command"]
    assert program == "postgres"
    (allowed,) = [int(one.partition("=")[2]) for one in options if one.startswith("max_connections=")]
    gateways = settings.server.workers * settings.database_connections
    assert allowed >= gateways + 2 * settings.database_connections + 3, (
        "two commands, and Postgres's own reserve"
    )


def services(project: Path, *arguments: str) -> dict[str, Any]:
    environ = made_again(project, *arguments)
    found: dict[str, Any] = compose.load(FILE, environ)["services"]
    return found


def made_again(project: Path, *arguments: str) -> dict[str, str]:
    (project / ".env").unlink(missing_ok=True)
    return made(project, *arguments)
