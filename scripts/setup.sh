#!/bin/sh
# Makes .venv ready: `scripts/setup.sh quickstart` to run the gateway, `scripts/setup.sh dev` to work on it.
# Both fill the same .venv. Does nothing when the lock and pyproject.toml are those of the last time.
# PYTHON=… chooses the interpreter of a new .venv.
set -eu
cd "$(dirname "$0")/.."
lock="requirements/$1.lock"
stamp=".venv/.installed-$1"
python=.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '→ %s\n' "$*"; }

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Sets `interpreter` to a Python ≥ 3.11 that can make virtual environments.
find_python() {
    half=''
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            interpreter=$candidate
            return
        fi
        half=${half:-$candidate}
    done
    if [ -n "$half" ]; then
        fail "$half cannot make virtual environments: its module 'venv' or 'ensurepip' is missing." \
            "On Debian and Ubuntu: apt install python3-venv. Or name another one: make PYTHON=/path/to/python3"
    fi
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not a Python of version 3.11 or newer."
    fi
    fail "No Python of version 3.11 or newer found on PATH." \
        "Install one, or name it: make PYTHON=/path/to/python3"
}

# uv takes seconds where pip takes a minute. Where it cannot be had, or cannot reach the registry that pip is
# configured for, pip does the same.
install_lock() {
    if "$python" -m pip install -qq --require-hashes --requirement requirements/installer.lock 2>/dev/null &&
        "$python" -m uv pip install --quiet --python "$python" --compile-bytecode --require-hashes \
            --requirement "$lock" 2>/dev/null; then
        return
    fi
    "$python" -m pip install -qq --require-hashes --requirement "$lock"
}

# What a link leads to is somebody else's: making it anew would empty it for all who use it.
if [ -L .venv ]; then
    fail "$PWD/.venv is a link to $(readlink .venv), which is left as it is; remove the link, and this makes a .venv here."
fi

# A .venv whose interpreter has gone, or that was copied or moved here from another folder, is made anew.
if ! grep -qF "$PWD/.venv" .venv/bin/activate 2>/dev/null ||
    ! "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if [ -e .venv ] && [ ! -e .venv/pyvenv.cfg ]; then
        fail "$PWD/.venv exists and is not a virtual environment; move it away first."
    fi
    find_python
    say "making .venv with $("$interpreter" --version)"
    "$interpreter" -m venv --clear .venv
fi

wanted="$(cat "$lock" pyproject.toml | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "installing $(grep -c '^[a-z0-9].*==' "$lock") packages from $lock"
    install_lock
    "$python" -m pip install -qq --no-deps --no-build-isolation --editable .
    printf '%s\n' "$wanted" >"$stamp"
fi
