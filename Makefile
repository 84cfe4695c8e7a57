# Everything runs in .venv, which the targets make and keep up to date themselves.
# PYTHON=/path/to/python3 chooses the interpreter of a new .venv; ARGS='…' is passed on.

SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test chaos scale-out check fmt bench lock licences audit sbom rooms env replay clean quickstart-venv dev-venv

ARGS ?=
JOBS ?= 3
PORT ?=
SEEDS ?= 1 2 3 4 5
SECONDS ?= 60
CLIENTS ?= 4000
CALLS ?= 1000
PYTHON ?=
SANDBOX ?=
export PYTHON

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: quickstart-venv ## the whole gateway on this machine, with a simulated Pixapi: PORT=8080, PIXAPI_KEY=… for the real one
	@exec .venv/bin/pixapi-gateway quickstart $(if $(PORT),--port $(PORT)) $(ARGS)

test: dev-venv ## all tests: ARGS='-k ledger', JOBS=3
	@.venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

chaos: dev-venv ## faults and traffic mixed, then every invariant: SEEDS='1 2 3', SECONDS=60 each, CLIENTS=4000 that leave, CALLS=1000
	@PXG_CHAOS_SEEDS='$(SEEDS)' PXG_CHAOS_SECONDS=$(SECONDS) PXG_STORM_CLIENTS=$(CLIENTS) \
		PXG_FAULTED_CALLS=$(CALLS) \
		.venv/bin/python -m pytest -s tests/faults/test_postgres.py tests/e2e/test_rolling_restart.py tests/faults/test_chaos.py \
		tests/e2e/test_cancel_storm.py tests/e2e/test_faulted_calls.py $(ARGS)

scale-out: dev-venv ## three gateways behind HAProxy, replaced and killed under traffic: SECONDS=60
	@PXG_SCALE_OUT_SECONDS=$(SECONDS) .venv/bin/python -m pytest -s tests/e2e/test_scale_out.py $(ARGS)

check: dev-venv ## formatting, lint, types, layers, documentation
	@.venv/bin/ruff format --check --output-format concise . || { echo 'Not formatted; run: make fmt' >&2; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/python -m pytest -q tests/docs

fmt: dev-venv ## format, and mend what ruff can mend
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: dev-venv ## the gateway beside nginx, Portkey and LiteLLM: ARGS='compare --help', ARGS=--help for the other benchmarks
	@.venv/bin/python -m benchmarks $(ARGS)

lock: dev-venv ## write requirements/*.lock anew: ARGS=--upgrade for newer versions
	@scripts/lock.sh $(ARGS)

licences: dev-venv ## write docs/licences.md anew, from the packages' own metadata
	@.venv/bin/python -m scripts.licences

audit: dev-venv ## look every locked package up in the vulnerability service; 3 when it cannot be asked
	@scripts/audit.sh

sbom: dev-venv ## bill of materials of what runs, CycloneDX: build/sbom.cdx.json
	@.venv/bin/python -m scripts.sbom

rooms: dev-venv ## draw docs/images/rooms.svg anew, from the layers in pyproject.toml
	@.venv/bin/python -m scripts.draw_rooms

env: ## .env with fresh secrets for docker compose: SANDBOX=1 for a simulated Pixapi
	@scripts/make_env.sh $(if $(SANDBOX),sandbox)

replay: dev-venv ## the Dockerfile and compose without docker, as root on Linux: build, migrate, serve, one call
	@.venv/bin/python -m scripts.replay $(ARGS)

clean: ## remove .venv, caches and builds; the quickstart's data stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache build dist
	find benchmarks gateway migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +

quickstart-venv:
	@scripts/setup.sh quickstart

dev-venv:
	@scripts/setup.sh dev
