#!/bin/sh
# Writes .env for docker compose: fresh secrets that only this user may read. Never overwrites one.
# `scripts/make_env.sh sandbox` has the gateway call the simulated Pixapi of the profile `sandbox`.
set -eu
cd "$(dirname "$0")/.."

if [ -e .env ] || [ -L .env ]; then
    echo '.env exists and is left as it is. Its secrets decrypt the stored upstream keys: move it away, do not lose it.' >&2
    exit 1
fi

secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
set -C # a file that appeared since the check is not overwritten either
cat >.env <<END
# Made by \`make env\`. What each one does: .env.example
GATEWAY_SECRETS__MASTER_KEYS=$(secret)
GATEWAY_SECRETS__KEY_PEPPER=$(secret)
GATEWAY_ADMIN__BOOTSTRAP_TOKEN=$(secret)
GATEWAY_METRICS__TOKEN=$(secret)
POSTGRES_PASSWORD=$(secret)
GRAFANA_PASSWORD=$(secret)
END
next='docker compose up -d --build'
if [ "${1:-}" = sandbox ]; then
    cat >>.env <<END
COMPOSE_PROFILES=sandbox
GATEWAY_UPSTREAM__BASE_URL=http://sandbox:8090
END
    next='docker compose run --rm --build demo'
fi
echo "Wrote .env (mode 0600). Next: $next"
