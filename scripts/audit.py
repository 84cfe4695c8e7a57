"""Asks pip-audit about every lock, and says the difference between "nothing is known" and "nobody was asked".

`python -m scripts.audit PIP_AUDIT` with the path of the program; `make audit` installs it beside. Exit code 0: every
package of every lock was looked up and none has a known vulnerability; 1: some have; 3: some could not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.locked import ROOT

SECONDS = 300
VULNERABLE, NOT_ASKED = 1, 3


@dataclass(frozen=True)
class Audit:
    """What was found for one lock: `known` are sentences, `not_asked` names; `failure` is why there is no answer."""

    lock: str
    known: tuple[str, ...] = ()
    not_asked: tuple[str, ...] = ()
    failure: str = ""


def audit(program: str, lock: Path) -> Audit:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [program, "--disable-pip", "--require-hashes", "--requirement", str(lock)]
        command += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Audit(lock.name, failure=f"no answer within {SECONDS} s")
        if not report.exists():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            return Audit(lock.name, failure=said[-1] if said else f"pip-audit ended with {done.returncode}")
        return read_report(lock.name, json.loads(report.read_text("utf-8")))


def read_report(lock: str, report: dict[str, Any]) -> Audit:
    """pip-audit's JSON. It ends with 0 and "No known vulnerabilities" also when it could look up nothing."""
    known, not_asked = [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            not_asked.append(package["name"])
        for one in package.get("vulns", ()):
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            known.append(f"{package['name']} {package['version']}: {one['id']}, mended in {mended}")
    return Audit(lock, tuple(known), tuple(not_asked))


def conclude(audits: list[Audit]) -> tuple[int, list[str]]:
    """The exit code and what to say."""
    lines = []
    for one in audits:
        lines += [f"{one.lock}: {sentence}" for sentence in one.known]
        if one.failure:
            lines.append(
                f"{one.lock}: NOT CHECKED: the vulnerability service cannot be reached ({one.failure})"
            )
        elif one.not_asked:
            lines.append(
                f"{one.lock}: NOT CHECKED: the vulnerability service knows nothing of {len(one.not_asked)} packages "
                f"({', '.join(one.not_asked[:5])}{', …' if len(one.not_asked) > 5 else ''}); "
                "through a mirror of the index it usually cannot be reached"
            )
        elif not one.known:
            lines.append(f"{one.lock}: every package looked up, no known vulnerability")
    if any(one.known for one in audits):
        return VULNERABLE, lines
    return (NOT_ASKED if any(one.failure or one.not_asked for one in audits) else 0), lines


def main() -> int:
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    code, lines = conclude([audit(sys.argv[1], lock) for lock in locks])
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
