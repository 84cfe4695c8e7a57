#!/bin/sh
# Looks every package of requirements/*.lock up in the vulnerability service, with pip-audit in a virtual environment of its own.
# Exit code 0: all looked up, nothing known; 1: something known; 3: not everything could be looked up.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

.venv/bin/python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes \
    --requirement requirements/audit.lock
.venv/bin/python -m scripts.audit "$folder/venv/bin/pip-audit"
