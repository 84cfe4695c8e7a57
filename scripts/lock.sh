#!/bin/sh
# Writes requirements/*.lock anew from pyproject.toml. `scripts/lock.sh --upgrade` takes newer versions where allowed.
set -eu
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null; then
    PATH="$PWD/.venv/.uv/bin:$PATH"
    if ! command -v uv >/dev/null; then
        echo '→ installing uv beside .venv'
        .venv/bin/python -m pip install -qq --target .venv/.uv uv
    fi
fi

# The file name first, then which extras and groups it holds. What is locked already stays, unless --upgrade is given.
compile() {
    name=$1
    shift
    echo "→ requirements/$name.lock"
    uv pip compile pyproject.toml "$@" --generate-hashes --universal --no-emit-index-url --no-header --quiet \
        --output-file "requirements/$name.lock"
}

pins() {
    grep -oE '^[a-z0-9][^ ]*==[^ ]+' "requirements/$1.lock" | sort -u
}

compile dev --all-extras --group dev "$@"
compile quickstart --extra embedded --group build "$@"
compile runtime "$@"

echo '→ requirements/installer.lock'
echo 'uv>=0.13' | uv pip compile - "$@" --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
    --no-header --no-annotate --quiet --output-file requirements/installer.lock

echo '→ requirements/audit.lock'
echo 'pip-audit>=2.10' | uv pip compile - "$@" --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
    --no-header --no-annotate --quiet --output-file requirements/audit.lock

# One .venv serves them all, so a package must have the same version in each.
for name in runtime quickstart; do
    pins dev >.venv/.dev-pins
    other="$(pins "$name" | comm -23 - .venv/.dev-pins)"
    if [ -n "$other" ]; then
        printf 'requirements/%s.lock and dev.lock disagree:\n%s\n' "$name" "$other" >&2
        exit 1
    fi
done
