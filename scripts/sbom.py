"""Writes the bill of materials of what the gateway runs on: CycloneDX 1.6, from a lock with its hashes.

`python -m scripts.sbom [--output build/sbom.cdx.json]`. The same lock gives the same document, but for its time, which
SOURCE_DATE_EPOCH sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.licences import LOCK, UnknownLicenceError, licence
from scripts.locked import OURSELVES, ROOT, Locked, lock_path, read_lock

_NAMESPACE = uuid.UUID("8f6dc0c5-5b6f-4d0e-9f0f-2f7c6e0f6a11")


def document(made_at: datetime) -> dict[str, Any]:
    """The whole bill; `made_at` with its zone."""
    packages = read_lock(LOCK)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    ourselves = f"pkg:pypi/{OURSELVES}@{version}"
    content = f"{ourselves}\n{lock_path(LOCK).read_text('utf-8')}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {
            "timestamp": made_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": ourselves,
                "name": OURSELVES,
                "version": version,
                "purl": ourselves,
                "licenses": [{"license": {"id": "MIT"}}],
            },
        },
        "components": [_component(package) for package in packages],
        "dependencies": [
            {"ref": ourselves, "dependsOn": _asked_for_by(OURSELVES, packages)},
            *({"ref": purl(one), "dependsOn": _asked_for_by(one.name, packages)} for one in packages),
        ],
    }


def purl(package: Locked) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"


def _component(package: Locked) -> dict[str, Any]:
    stated = licence(package)
    licences = {"expression": stated} if " " in stated else {"license": {"id": stated}}
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        # One for each file of this version that the lock allows to be installed.
        "hashes": [{"alg": "SHA-256", "content": content} for content in package.hashes],
        "licenses": [licences],
        "purl": purl(package),
    }
    if package.marker:
        found["properties"] = [{"name": "pixapi-gateway:marker", "value": package.marker}]
    return found


def _asked_for_by(name: str, packages: list[Locked]) -> list[str]:
    return [purl(package) for package in packages if name in package.via]


def main() -> int:
    options = argparse.ArgumentParser(
        description="Writes the bill of materials of requirements/runtime.lock."
    )
    options.add_argument("--output", type=Path, default=ROOT / "build/sbom.cdx.json")
    output: Path = options.parse_args().output
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        made = document(datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC))
    except UnknownLicenceError as error:
        print(f"A licence nobody has looked at: {error}", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(made, indent=2) + "\n", "utf-8")
    print(f"→ {output}: {len(made['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
