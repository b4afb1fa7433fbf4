# `make` alone lists what there is. Needs nothing but Python 3.11 or newer (`make PYTHON=python3.12 …`).
# ARGS goes to the program behind run, the tests, bench, bench-fleet, demo, bundle and tools: make run ARGS='-c my.yaml'

PYTHON := python3
ARGS :=
VENV_PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv run test test-fast test-all lint bench bench-fleet demo dashboard docs-security bundle tools lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

# Installs $(1) with the pinned versions, into a virtual environment that works.
define install
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { echo 'No virtual environment can be made: on Debian and Ubuntu, apt-get install python3-venv' >&2; exit 1; }
	@echo 'Installing $(1) into .venv'
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '$(1)'
	@$(VENV_PYTHON) -m compileall -q sidecar
endef

# What `run` needs, so that a newcomer waits for nothing else.
.venv/.runtime: setup.cfg constraints.txt
	$(call install,.)
	@touch $@

.venv/.dev: setup.cfg constraints.txt
	$(call install,.[dev])
	@touch .venv/.runtime $@

venv: .venv/.dev ## the virtual environment with everything for development

# An empty environment: in memory and on localhost:9100, whatever this shell has set for Consul or Nomad.
run: .venv/.runtime ## the daemon, embedded: in memory, on localhost:9100
	@exec env -i HOME="$$HOME" PATH="$$PATH" TERM="$${TERM:-dumb}" LANG=C.UTF-8 $${NO_COLOR:+NO_COLOR=1} $(VENV_PYTHON) -m sidecar run $(ARGS)

test: .venv/.dev ## what a newcomer runs: the tests that need Consul or nothing; without it, the last line says so
	@$(VENV_PYTHON) -m tools.run_tests test $(ARGS)

test-fast: .venv/.dev ## the tests that need no server
	@$(VENV_PYTHON) -m tools.run_tests fast $(ARGS)

test-all: .venv/.dev ## every test; a missing server or a skip fails
	@$(VENV_PYTHON) -m tools.run_tests all $(ARGS)

lint: .venv/.dev ## format, rules, types, and which part may import which
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy
	.venv/bin/lint-imports

bench: .venv/.dev ## the measurements
	@$(VENV_PYTHON) -m tools.get_tools consul
	@$(VENV_PYTHON) -m tools.get_tools opa || echo 'Measuring without OPA.' >&2
	@$(VENV_PYTHON) -m tools.get_tools kafka || echo 'Measuring without Kafka.' >&2
	@$(VENV_PYTHON) -m bench $(ARGS)

# Ctrl-C is the program's to handle, so it replaces the shell.
demo: .venv/.runtime ## an outage with the breaker and without, on real Kafka and Consul (PLAIN=1: text only)
	@$(VENV_PYTHON) -m tools.get_tools consul kafka >&2
	@exec $(VENV_PYTHON) -m tools.demo $(if $(PLAIN),--plain) $(ARGS)

dashboard: .venv/.dev ## monitoring/dashboard.json anew, from tools/dashboard
	@$(VENV_PYTHON) -m tools.dashboard

docs-security: .venv/.dev ## the tables of docs/security.md anew, from what a run of the tests sees
	@$(VENV_PYTHON) -m tools.get_tools consul
	@BREAKER_WRITE_SECURITY=1 $(VENV_PYTHON) -m pytest -q tests/acceptance/test_door.py tests/acceptance/test_door_inside.py

bundle: .venv/.dev ## dist/: the self-contained tarball for hosts without Python, and its SBOM
	@$(VENV_PYTHON) -m tools.bundle $(ARGS)

bench-fleet: .venv/.dev ## what 1,000 followers ask of Consul (ARGS=--write: renew docs/scale.md)
	@$(VENV_PYTHON) -m tools.get_tools consul
	@$(VENV_PYTHON) -m bench.fleet $(ARGS)

tools: ## real servers at .tools/bin: from PATH, the cache, or built by Go (ARGS=consul: only that)
	@$(PYTHON) -m tools.get_tools $(ARGS)

lock: ## constraints.txt anew, from the newest versions setup.cfg allows
	@$(PYTHON) -m tools.lock

clean: ## everything made here; the cache outside the checkout stays
	rm -rf .venv .tools build dist breaker_sidecar.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
