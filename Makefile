# The first command on a machine with only Python and make may be any of these targets.
# PYTHON names the interpreter the environment is made with: make test PYTHON=python3.13
PYTHON ?= python3
# SERVED is the folder whose store is served: make serve SERVED=.demo
SERVED ?= .serve
VENV := .venv
BIN := $(VENV)/bin
SERVICES := .venv-services/.installed
CLIENTS := $(shell find examples/vault-clients -type f -not -path '*/node_modules/*' -not -path '*/target/*')
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo serve test check bench soak docs pictures clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    the main job on the embedded default: encrypt, rotate, crash, decrypt"
	@echo "make serve   the key service and its console for development, with an example to look at in .serve/"
	@echo "make test    every test, with the coverage gates"
	@echo "make check   format, lint, types, import contracts, file length, documentation"
	@echo "make bench   benchmarks against other libraries, in an environment of their own"
	@echo "make soak    crash, race, fuzz and load tests at full length"
	@echo "make docs    the documentation as a site in site/"
	@echo "make pictures  the pictures of the console in the documentation, taken anew"
	@echo "make clean   remove environments, caches and reports"

demo: $(VENV)/.installed-demo
	@rm -rf .demo
	@$(BIN)/keystead demo --keep .demo
	@echo "See its keys at the console: make serve SERVED=.demo, then open http://127.0.0.1:3000/"

serve: $(VENV)/.installed-serve
	@mkdir -p $(SERVED)
	@cd $(SERVED) && { [ -f keystead.yaml ] || [ ! -f keys.db ] || $(CURDIR)/$(BIN)/keystead init; } && \
	  $(CURDIR)/$(BIN)/keystead serve --dev

test: $(VENV)/.installed-test $(SERVICES)
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal --cov --cov-report=term --cov-report=json $(PYTEST_ARGS)
	$(BIN)/python scripts/check_coverage.py coverage.json

check: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_file_length.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks

soak: $(VENV)/.installed-test $(SERVICES) .venv-bench/.installed
	$(BIN)/python -m soak
	.venv-bench/bin/python -m benchmarks evidence

docs: $(VENV)/.installed-check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/.installed-test
	KEYSTEAD_SCREENSHOTS=$(CURDIR)/docs/assets/console $(BIN)/python -m pytest --quiet tests/server/console/test_newcomer.py

clean:
	rm -rf .demo .venv .venv-bench .venv-services site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf artefacts build dist coverage.json .coverage .coverage.*

# Each stamp says that an environment holds what its target needs, as pyproject.toml lists it.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[cli]'
	@touch $@

$(VENV)/.installed-serve: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[server]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[cli,postgres]' --group test
	@touch $@

$(VENV)/.installed-check: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[cli,postgres]' --group dev
	@touch $@

# The KMS services that tests run against, as far as the package index has them, and clients of the machine API.
$(SERVICES): $(wildcard tests/services/requirements/*.txt) $(CLIENTS) | $(VENV)/.installed-test
	$(BIN)/python -m tests.services.install
	$(BIN)/python -m tests.services.vault_clients
	@touch $@

.venv-bench/.installed: pyproject.toml benchmarks/install.py benchmarks/apollo/package-lock.json | .venv-bench/bin/python
	.venv-bench/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[postgres,server]'
	.venv-bench/bin/python -m benchmarks.install
	@touch $@

# Python 3.13 where there is one: it alone has a package of every library compared.
.venv-bench/bin/python:
	@for candidate in python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13*/bin/python3.13 $(PYTHON); do \
	  "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "benchmarks run on $$("$$candidate" --version)"; \
	  "$$candidate" -m venv .venv-bench; exit; \
	done; echo "Keystead needs Python 3.11 or newer with venv: make bench PYTHON=/path/to/python3.13" >&2; exit 1

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Keystead needs Python 3.11 or newer, and '$(PYTHON)' is older or missing: make <target> PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
