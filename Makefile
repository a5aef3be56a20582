# `make run` on a fresh machine needs Python 3.11 or newer (with its venv module) and make; nothing else.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run test coverage test-system demo bench soak lock format

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
MINUTES ?= 10
WORKERS ?= 4

# Debian packages of the system tests, each with the program that tells that it is there.
SYSTEM_PACKAGES := chromium:chromium strace:strace nginx-light:nginx openssl:openssl systemd:systemd-analyze

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: $(VENV)/.project ## make the virtual environment and install the locked packages (at once when nothing changed)

# PYTHON=... chooses another interpreter; a shim that only prints an error is passed over.
$(BIN)/python:
	@for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$($$candidate --version)"; \
	        "$$candidate" -m venv --clear $(VENV) && exit 0; \
	        echo "The venv module does not work; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	    fi; \
	done; \
	echo "Python 3.11, 3.12, 3.13 or 3.14 is needed; none of them is on the PATH" >&2; exit 1

$(VENV)/.packages: requirements/dev.txt | $(BIN)/python
	@echo "Installing the packages of $<"
	@$(PIP) --require-hashes --requirement $<
	@touch $@

$(VENV)/.project: pyproject.toml $(VENV)/.packages
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.project
	@echo "Installing the packages of $<"
	@$(PIP) --require-hashes --requirement $<
	@touch $@

run: setup ## start everything; without credentials against the sandbox
	@$(BIN)/twm up

demo: setup ## a whole sync of a sandbox account into the embedded PostgreSQL, then exit
	@$(BIN)/twm up --sandbox --once

test: setup ## every check and test that needs nothing but Python
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --numprocesses $(WORKERS)

coverage: setup ## the tests again, and which lines they reach (slower)
	$(BIN)/pytest --numprocesses $(WORKERS) --cov --cov-report term

test-system: setup ## the tests that need a browser, strace or other packages of the system
	@$(BIN)/pytest -m system --collect-only --quiet >/dev/null; [ $$? != 5 ] || { echo "There are no system tests."; exit 0; }; \
	missing=; for pair in $(SYSTEM_PACKAGES); do \
	    command -v "$${pair#*:}" >/dev/null || missing="$$missing $${pair%:*}"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing:$$missing"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -qq --yes --no-install-recommends $$missing >/dev/null; } || exit 1; \
	elif [ -n "$$missing" ]; then \
	    echo "Missing on this system (by Debian's names):$$missing" >&2; exit 1; \
	fi; \
	$(BIN)/pytest -m system

bench: $(VENV)/.bench ## the benchmarks; results also in bench/results/
	$(BIN)/python -m bench

soak: setup ## random work and faults for MINUTES (10); SEED repeats one
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lock: ## write requirements/ anew (needs uv); UPGRADE=1 takes newer versions
	sh requirements/compile.sh $(if $(UPGRADE),--upgrade)

format: setup ## bring the code into its form, write .env.example and docs/configuration.md anew
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -c 'from twm_pipeline.settings_pages import env_example; print(env_example(), end="")' > .env.example
	$(BIN)/python -c 'from twm_pipeline.settings_pages import configuration_page; print(configuration_page(), end="")' \
	    > docs/configuration.md
	$(BIN)/python -c 'from pathlib import Path; from twm_pipeline.settings_pages import with_settings_table; \
	    page = Path("README.md"); page.write_text(with_settings_table(page.read_text()))'
