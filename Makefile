# Everything from a fresh checkout: Python >= 3.10, git and make are all it takes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-lowest rehearse lint check format docs docs-serve screenshots dist clean

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
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test: $(INSTALLED)  ## run the tests
	$(PYTEST)

test-fast: $(INSTALLED) ## the tests that take neither a browser nor long, on all cores
	$(PYTEST) -m "not slow and not browser"

# The lowest versions that setup.cfg allows, of what it names; what those need in turn is the newest. uv resolves it.
LOWEST := .venv-lowest

$(LOWEST)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --upgrade --resolution lowest-direct --editable '.[all,test]'
	@touch $@

test-lowest: $(LOWEST)/.installed ## the quick tests with the lowest versions that setup.cfg allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n logical --maxprocesses 4 -m "not slow and not browser"

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

# The tools of the site and of a release go into .venv when they are first asked for; `make test` does without.
.venv/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

.venv/.release: $(INSTALLED)
	$(BIN)/python -m pip install --quiet build twine
	@touch $@

docs: .venv/.docs ## build the documentation site into site/; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --jobs auto -b html -c docs -d .venv/doctrees . site

docs-serve: docs ## build the site and serve it at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000

screenshots: $(INSTALLED) ## take the pictures in docs/images again, with Chromium and the shipped models
	$(BIN)/python docs/screenshots.py

dist: .venv/.release ## build the sdist, the wheel from it, and check both
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python release/check_dist.py dist

clean:           ## remove the environments and what the targets made
	rm -rf .venv $(LOWEST) site demo runs build dist *.egg-info
