"""What is installed: pinned with hashes, under licences somebody has read, listed in a bill, looked up honestly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scripts import audit, licences, sbom
from scripts.locked import ROOT, Locked, read_lock
from tests.docs.pages import page, table

LOCKS = sorted(path.stem for path in (ROOT / "requirements").glob("*.lock"))
MADE_AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
# Every module of the gateway, with every way to another machine closed.
IMPORTER = """
import importlib, pkgutil, socket, sys

def refused(*_arguments, **_named):
    raise AssertionError("a module asked for the network while it was imported")

for name in ("connect", "connect_ex", "bind", "sendto"):
    setattr(socket.socket, name, refused)
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    setattr(socket, name, refused)

import gateway

count = 0
for found in pkgutil.walk_packages(gateway.__path__, "gateway.", onerror=None):
    if found.name.rpartition(".")[2] != "__main__":
        importlib.import_module(found.name)
        count += 1
print(count)
"""


# Locks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    packages = read_lock(lock)
    assert packages
    assert [package.name for package in packages if not package.hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_reader_of_locks_misses_no_package(lock: str) -> None:
    text = page(f"requirements/{lock}.lock")
    assert len(read_lock(lock)) == len(re.findall(r"^[a-z0-9].*==", text, re.MULTILINE))
    assert sum(len(package.hashes) for package in read_lock(lock)) == text.count("--hash=sha256:")


def test_every_install_asks_for_hashes() -> None:
    installs = [
        line
        for name in ("scripts/setup.sh", "scripts/audit.sh", "Dockerfile")
        for line in re.sub(r"\\\n\s*", "", page(name)).splitlines()
        if re.search(r"pip install\b", line) and not line.lstrip().startswith("#")
    ]
    assert len(installs) >= 4
    for line in installs:
        without = "--no-deps" in line  # our own wheel or checkout
        assert "--require-hashes" in line or without, line


# Licences ---------------------------------------------------------------------------------------------------


def test_the_list_of_licences_is_current() -> None:
    assert page("docs/licences.md") == licences.page(), "run: make licences"


def test_every_package_that_runs_is_listed_with_a_licence() -> None:
    listed = {row[0]: row[2] for row in table(page("docs/licences.md"), "package")}
    assert sorted(listed) == sorted(package.name for package in read_lock("runtime"))
    assert all(listed.values())


def test_a_licence_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(licences.UnknownLicenceError, match="no-such-package 1"):
        licences.licence(Locked("no-such-package", "1", "", (), ()))
    monkeypatch.setattr(licences, "ACCEPTED", licences.ACCEPTED - {"MIT"})
    with pytest.raises(licences.UnknownLicenceError, match="MIT"):
        licences.page()


# The bill of materials --------------------------------------------------------------------------------------


@pytest.fixture
def bill() -> dict[str, Any]:
    return sbom.document(MADE_AT)


def test_the_bill_has_what_cyclonedx_requires(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill["metadata"]["timestamp"] == "2026-11-23T08:30:00Z"
    assert bill["metadata"]["component"]["name"] == "pixapi-gateway"
    for component in bill["components"]:
        assert component["type"] == "library"
        assert component["purl"] == f"pkg:pypi/{component['name']}@{component['version']}"
        assert component["hashes"]
        assert all(
            one["alg"] == "SHA-256" and re.fullmatch("[0-9a-f]{64}", one["content"])
            for one in component["hashes"]
        )
        (stated,) = component["licenses"]
        assert stated.get("expression") or stated["license"]["id"]


def test_the_bill_is_the_lock(bill: dict[str, Any]) -> None:
    listed = {(one["name"], one["version"], len(one["hashes"])) for one in bill["components"]}
    assert listed == {(one.name, one.version, len(one.hashes)) for one in read_lock("runtime")}


def test_everything_in_the_bill_is_reached_from_the_gateway(bill: dict[str, Any]) -> None:
    edges = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += edges[ref]
    assert reached == {one["bom-ref"] for one in bill["components"]} | {
        bill["metadata"]["component"]["bom-ref"]
    }


def test_the_same_lock_gives_the_same_bill(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = [sys.executable, "-m", "scripts.sbom", "--output", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, env={"SOURCE_DATE_EPOCH": "1795426200"}, check=True, timeout=30)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert json.loads((tmp_path / "one").read_text())["metadata"]["timestamp"].startswith("2026-11-23")


# The audit --------------------------------------------------------------------------------------------------

CLEAN = {"name": "jinja2", "version": "3.1.6", "vulns": []}
SKIPPED = {"name": "aiohttp", "skip_reason": "Dependency not found on PyPI and could not be audited"}
KNOWN = {"name": "h11", "version": "0.1", "vulns": [{"id": "CVE-2025-43859", "fix_versions": ["0.16.0"]}]}


def test_an_audit_that_found_nothing_ends_with_0() -> None:
    code, lines = audit.conclude([audit.read_report("a.lock", {"dependencies": [CLEAN]})])
    assert (code, lines) == (0, ["a.lock: every package looked up, no known vulnerability"])


@pytest.mark.parametrize(
    "one",
    [
        audit.read_report("a.lock", {"dependencies": [CLEAN, SKIPPED]}),
        audit.Audit("a.lock", failure="ConnectionError: name or service not known"),
    ],
)
def test_an_audit_that_nobody_answered_is_no_good_news(one: audit.Audit) -> None:
    code, lines = audit.conclude([audit.read_report("b.lock", {"dependencies": [CLEAN]}), one])
    assert code == audit.NOT_ASKED
    assert "NOT CHECKED: the vulnerability service" in lines[1]


def test_a_known_vulnerability_outweighs_the_rest() -> None:
    report = {"dependencies": [KNOWN, SKIPPED, CLEAN]}
    code, lines = audit.conclude([audit.read_report("a.lock", report)])
    assert code == audit.VULNERABLE
    assert lines[0] == "a.lock: h11 0.1: CVE-2025-43859, mended in 0.16.0"
    assert "NOT CHECKED" in lines[1]


@pytest.mark.parametrize(
    ("script", "said"), [("exit 0", "ended with 0"), ("echo no route >&2; exit 1", "no route")]
)
def test_an_audit_without_a_report_says_why(tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = audit.audit(str(program), ROOT / "requirements/installer.lock")
    assert said in found.failure
    assert audit.conclude([found])[0] == audit.NOT_ASKED


# Imports ----------------------------------------------------------------------------------------------------


def test_no_module_asks_for_the_network_while_it_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150
