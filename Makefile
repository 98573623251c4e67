# Everything from a fresh checkout: Python >= 3.10, git and make are all it takes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast rehearse lint check format clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "lesion-hub needs Python 3.10 or newer; try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into .venv (PyTorch is large; the first time takes some minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## fine-tune, measure, publish, explain on a synthetic set, offline; then serve the page (SERVE=0: not)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# One thread each, for the tests run side by side; more than four at once gain nothing but load.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4

test: $(INSTALLED)  ## run the tests
	$(PYTEST)

test-fast: $(INSTALLED) ## the tests that take neither a browser nor long, on all cores
	$(PYTEST) -m "not slow and not browser"

rehearse: $(INSTALLED) ## publish a Space to a Hub on loopback, build it afresh, ask it, start it offline (REHEARSE: its options)
	$(BIN)/python spaces/rehearse.py $(REHEARSE)

lint: $(INSTALLED) ## ruff, its formatting, and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## lint and the tests: what a change must pass

format: $(INSTALLED) ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and what the demo made
	rm -rf .venv demo runs build dist *.egg-info
