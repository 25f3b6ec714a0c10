# What one can do here. `make demo` and `make test` work from an empty clone: they need Python 3.11 and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## list what one can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# Installed once; again when what is asked for changes.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps azula k-diffusion  # why: see the extra `peers`
	@touch $@

.PHONY: install
install: $(VENV)/installed ## set everything up in .venv

.PHONY: demo
demo: $(VENV)/installed ## run the main study: Gaussian noise to U[0,1], a table and a page of pictures
	$(BIN)/diffatlas run uniform

.PHONY: test
test: $(VENV)/installed ## all tests, with a real Prefect server, a real Ray and a real store
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q

$(VENV)/ministack/installed: $(VENV)/installed tests/ministack.txt
	test -x $(VENV)/ministack/bin/python || $(PYTHON) -m venv $(VENV)/ministack
	$(VENV)/ministack/bin/python -m pip install --quiet --requirement tests/ministack.txt
	@touch $@

.PHONY: servers
servers: $(VENV)/ministack/installed ## a second S3 server for the tests, which are left out where there is none

.PHONY: lint
lint: $(VENV)/installed ## lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: docs
docs: $(VENV)/installed ## build the guide, strictly and without a network: build/docs/index.html
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	@echo build/docs/index.html

.PHONY: check
check: lint ## lint, types, layers and the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "not slow"

.PHONY: audit
audit: ## ask PyPI for known holes in what constraints.txt pins (needs the network; by hand, see SECURITY.md)
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit; }
	sed 's/+cpu//' constraints.txt > .audit/pinned.txt
	.audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement .audit/pinned.txt

.PHONY: bench
bench: $(VENV)/installed ## ratios of speed, measured side by side on this machine
	$(BIN)/python -m tests.benchmarks.run

.PHONY: gpu-check
gpu-check: $(VENV)/installed ## what is promised of a GPU, held against the one of this machine: at most eight minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.gpu.check

.PHONY: clean
clean: ## remove the environment, caches, results and reports
	rm -rf $(VENV) .audit results results.lock reports build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
