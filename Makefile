# Everything from a fresh checkout: Python >= 3.10, git and make are all it takes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help:            ## list the targets
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

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

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest

check: $(INSTALLED) ## ruff, mypy and the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(INSTALLED) ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and what the demo made
	rm -rf .venv demo runs build dist *.egg-info
