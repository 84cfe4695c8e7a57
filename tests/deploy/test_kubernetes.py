"""deploy/kubernetes: what an API server accepts, and the promises of the product kept in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.settings import load
from scripts.replay.dockerfile import read
from tests.deploy.schema import kubernetes_problems
from tests.docs.pages import ROOT, page

FOLDER = ROOT / "deploy" / "kubernetes"
SECRETS = "/run/secrets/pixapi-gateway/"
# Files of kustomize, and of the Prometheus operator, whose schema is its own.
OTHERS = {"Kustomization", "Component", "ServiceMonitor"}


@cache
def documents() -> list[tuple[str, dict[str, Any]]]:
    """(file, document) of every manifest."""
    return [
        (str(path.relative_to(FOLDER)), document)
        for path in sorted(FOLDER.rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def one(kind: str, name: str = "pixapi-gateway") -> dict[str, Any]:
    named = [document for _, document in documents() if document["kind"] == kind]
    (found,) = [document for document in named if document["metadata"]["name"] == name]
    return found


def pods() -> list[dict[str, Any]]:
    return [one("Deployment")["spec"]["template"], one("Job", "pixapi-gateway-migrate")["spec"]["template"]]


def container() -> dict[str, Any]:
    (found,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(
    ("file", "document"),
    [(file, document) for file, document in documents() if document["kind"] not in OTHERS],
)
def test_kubernetes_accepts_it(file: str, document: dict[str, Any]) -> None:
    assert kubernetes_problems(document) == []


def test_a_misspelt_field_would_be_found() -> None:
    wrong = {**one("Deployment"), "spec": {**one("Deployment")["spec"], "replica": 3}}
    assert "replica" in " ".join(kubernetes_problems(wrong))


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: no kustomization was built"
)
@pytest.mark.parametrize("everything", [False, True])
def test_kustomize_builds_it(tmp_path: Path, everything: bool) -> None:
    """As it is, and with all that is commented out."""
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    if everything:
        text = page("deploy/kubernetes/kustomization.yaml").replace("# - ", "- ")
        text = text.replace("# components", "components").replace("#   - ", "  - ")
        (folder / "kustomization.yaml").write_text(text, "utf-8")
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert [
        problem for found in built if found["kind"] not in OTHERS for problem in kubernetes_problems(found)
    ] == []
    assert {found["metadata"].get("namespace") for found in built if found["kind"] != "Namespace"} == {
        "pixapi-gateway"
    }
    kinds = {found["kind"] for found in built}
    assert ({"HorizontalPodAutoscaler", "ServiceMonitor", "Ingress"} <= kinds) == everything
    deployment = next(found for found in built if found["kind"] == "Deployment")
    assert ("replicas" in deployment["spec"]) != everything, (
        "an autoscaler and a fixed number work against each other"
    )
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    job = next(found for found in built if found["kind"] == "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert image.rpartition(":")[2] not in ("", "latest")


def test_three_pods_are_replaced_one_by_one() -> None:
    spec = one("Deployment")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert one("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3


def test_a_pod_has_time_for_its_drain() -> None:
    settings = load(ROOT / "config", environment())
    pod = one("Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= settings.server.drain_seconds + 5
    assert one("Deployment")["spec"]["progressDeadlineSeconds"] > pod["terminationGracePeriodSeconds"]


def test_a_pod_that_goes_is_served_until_its_probe_has_failed() -> None:
    settings, probe = load(ROOT / "config", environment()), container()["readinessProbe"]
    notices = probe["periodSeconds"] * probe["failureThreshold"]
    assert settings.server.drain_min_seconds > notices
    left = settings.server.drain_seconds - settings.server.drain_min_seconds
    assert left > settings.upstream.sync_timeout, "the last call that was taken has the time it may take"


def test_a_database_that_is_away_restarts_nobody() -> None:
    paths = {
        name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness", "startup")
    }
    assert paths == {"readiness": "/readyz", "liveness": "/healthz", "startup": "/healthz"}


@pytest.mark.parametrize("pod", pods(), ids=["gateway", "migrate"])
def test_pods_are_the_images_user_and_nothing_more(pod: dict[str, Any]) -> None:
    user = read(page("Dockerfile"))[-1].last("USER")
    assert user is not None
    spec = pod["spec"]
    security = spec["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user.rest
    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    for found in spec["containers"]:
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert found["resources"]["limits"]["memory"]


@pytest.mark.parametrize("pod", pods(), ids=["gateway", "migrate"])
def test_secrets_are_files_that_the_example_has(pod: dict[str, Any]) -> None:
    (found,) = pod["spec"]["containers"]
    mounted = next(mount for mount in found["volumeMounts"] if mount["name"] == "secrets")
    assert f"{mounted['mountPath']}/" == SECRETS
    files = {variable["name"]: variable["value"] for variable in found["env"]}
    assert all(name.endswith("_FILE") and path.startswith(SECRETS) for name, path in files.items())
    wanted = {path.removeprefix(SECRETS) for path in files.values()}
    example = one("Secret")["stringData"]
    assert wanted <= set(example)
    assert set(example.values()) == {""}, "a secret that stands in public is none"
    if pod is pods()[0]:
        assert wanted == set(example)


def test_the_spool_has_room_for_what_the_setting_allows() -> None:
    settings = load(ROOT / "config", environment())
    stage = read(page("Dockerfile"))[-1]
    folder = stage.last("ENV").pairs()["GATEWAY_SERVER__SPOOL_DIR"]  # type: ignore[union-attr]
    assert {mount["mountPath"] for mount in container()["volumeMounts"]} == {
        SECRETS.rstrip("/"),
        "/tmp",
        folder,
    }
    volume = next(volume for volume in one_pod()["volumes"] if volume["name"] == "spool")
    assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 > settings.server.spool_max_bytes


def one_pod() -> dict[str, Any]:
    return dict(one("Deployment")["spec"]["template"]["spec"])


def test_only_the_gateway_reaches_pixapi() -> None:
    policies = [document for _, document in documents() if document["kind"] == "NetworkPolicy"]
    nobody = one("NetworkPolicy", "nobody")["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    out = {
        (policy["metadata"]["name"], port["port"])
        for policy in policies
        for rule in policy["spec"].get("egress", [])
        for port in rule["ports"]
    }
    assert out == {("gateway", 443), ("database", 5432), ("database", 53), ("valkey", 6379)}
    names = next(
        rule["to"]
        for rule in one("NetworkPolicy", "database")["spec"]["egress"]
        if {port["port"] for port in rule["ports"]} == {53}
    )
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in names, "NodeLocal DNSCache is no pod"
    labels = one("Deployment")["spec"]["selector"]["matchLabels"]
    assert one("NetworkPolicy", "gateway")["spec"]["podSelector"]["matchLabels"] == labels
    job = one("Job", "pixapi-gateway-migrate")["spec"]["template"]["metadata"]["labels"]
    assert job != labels
    assert one("NetworkPolicy", "database")["spec"]["podSelector"]["matchLabels"].items() <= job.items()
    assert one("Service")["spec"]["selector"] == labels, "no request goes to the migration"


def test_the_autoscaler_counts_what_is_there() -> None:
    (metric,) = one("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f"`{name}`" in page("docs/metrics.md")
    settings = load(ROOT / "config", environment())
    assert int(metric["pods"]["target"]["averageValue"]) < settings.server.max_paid_in_flight * 2 / 3


def environment() -> dict[str, str]:
    """The settings of a pod, with secrets of a test."""
    text = (FOLDER / "gateway.env").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines) | {
        "GATEWAY_DATABASE__URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
        "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
        "GATEWAY_SECRETS__MASTER_KEYS": "mQ7xV2pLw9TzR4kYc8NfH3sJb6GdA1eU",
        "GATEWAY_SECRETS__KEY_PEPPER": "zK5nW8rXe2BvM9tQj4LhD7yPf3CsG6oA",
    }
