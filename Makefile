# make up    install, migrate, start the app with the demo project, print one-time login links
# make test  install, then lint, types and every test (the browser's too)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up install test lint format chromium constraints clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := feedback_app storage trainer migrations benchmarks tests
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export GRADIO_ANALYTICS_ENABLED := False
# Arguments of `feedback-app up`, for instance: make up ARGS="--port 8000"
ARGS ?=
# Arguments of pytest, for instance: make test PYTEST_ARGS="tests/cli -x"
PYTEST_ARGS ?=

help: ## show what there is to make
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

up: install ## start the app with the demo project on http://127.0.0.1:7860
	@exec $(BIN)/feedback-app up --demo $(ARGS)

install: $(STAMP) ## make .venv and install the app and its development tools

# Skipped while neither file is newer than the last install that went through.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

test: install chromium ## lint, types and every test
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: install ## ruff (rules and format) and mypy
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: install ## let ruff put the code into shape
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# The browser tests drive Debian's Chromium; without it they are skipped, with the reason.
chromium:
	@if ! command -v chromium >/dev/null 2>&1; then \
	  if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	    echo "installing chromium for the browser tests"; \
	    { apt-get install -y -qq chromium || { apt-get update -qq && apt-get install -y -qq chromium; }; } >/dev/null || \
	      echo "chromium could not be installed: the browser tests are skipped" >&2; \
	  else \
	    echo "chromium is missing, the browser tests are skipped; install it: sudo apt-get install chromium" >&2; \
	  fi; \
	fi

constraints: ## pin every package anew, in a throw-away environment
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet --editable '.[dev]'; \
	{ sed '/^#/!d' constraints.txt; \
	  "$$folder/venv/bin/python" -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//'; } > "$$folder/new"; \
	cp "$$folder/new" constraints.txt; \
	git --no-pager diff --stat constraints.txt

clean: ## remove what can be made again (not the data folder)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
