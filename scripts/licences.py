"""Writes docs/licences.md: the licence of every package of requirements/runtime.lock, by its own metadata.

`python -m scripts.licences` writes it, `--check` says whether it is current. A package whose licence is not known,
or is none of `ACCEPTED`, ends both with 1.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata

from scripts.locked import OURSELVES, ROOT, Locked, read_lock

PAGE = ROOT / "docs/licences.md"
LOCK = "runtime"
ACCEPTED = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "LGPL-3.0-only",  # psycopg, see docs/dependencies.md
    "MIT",
    "MIT-0",
    "MPL-2.0",  # certifi, a list of certificates
    "PSF-2.0",
}
# What packages write that are older than the metadata's own field for SPDX.
WORDS = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# Read in the licence file itself: their metadata is ambiguous, or no machine of ours installs them.
READ = {
    "async-timeout": "Apache-2.0",  # only below Python 3.11.3
    "colorama": "BSD-3-Clause",  # only on Windows
    "jinja2": "BSD-3-Clause",  # "BSD License"
    "uvloop": "Apache-2.0 OR MIT",  # "MIT License", and both files
}
HEAD = """\
# Licences

What the gateway runs on, and under which licence: every package of `requirements/runtime.lock`, which is what the
image carries. This page is written by `make licences` from the packages' own metadata, and a test compares it with
the lock. A package under a licence that nobody has looked at fails that test. The gateway itself is under MIT. Why
each direct dependency is there, and what follows from the LGPL of psycopg: [dependencies.md](dependencies.md).

| package | version | licence | asked for by |
|---|---|---|---|
"""


class UnknownLicenceError(Exception):
    """A package whose licence is not known, or not accepted."""


def licence(package: Locked) -> str:
    """An SPDX expression of accepted licences."""
    found = READ.get(package.name) or _stated(package)
    unknown = set(re.split(r" (?:AND|OR) ", found.strip("()"))) - ACCEPTED
    if unknown:
        raise UnknownLicenceError(f"{package.name} {package.version}: {found or 'no licence stated'}")
    return found


def _stated(package: Locked) -> str:
    try:
        stated = metadata.metadata(package.name)
    except metadata.PackageNotFoundError:
        return ""
    for field in ("License-Expression", "License"):
        text = str((stated.get_all(field) or [""])[0])
        if text:
            return WORDS.get(text, text.partition("\n")[0])
    classes = [line.rpartition(" :: ")[2] for line in stated.get_all("Classifier") or [] if "License" in line]
    return " OR ".join(WORDS.get(word, word) for word in classes)


def page() -> str:
    rows = []
    for package in read_lock(LOCK):
        via = ", ".join("the gateway" if name == OURSELVES else name for name in package.via)
        only = f" (only `{package.marker}`)" if package.marker else ""
        rows.append(f"| {package.name} | {package.version} | {licence(package)} | {via}{only} |")
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    try:
        wanted = page()
    except UnknownLicenceError as error:
        print(f"A licence nobody has looked at: {error}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted, "utf-8")
        print(f"→ {PAGE.relative_to(ROOT)}")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != wanted:
        print("docs/licences.md is not current; run: make licences", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
