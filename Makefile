# Two commands set everything up on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-browser lint format notebooks lab clean

help:
	@echo "make demo          train, compare and draw: the main job (results in demo/)"
	@echo "make test          run the tests"
	@echo "make test-browser  open the pages in a real Chromium, which must be installed"
	@echo "make lint          check format, style and types"
	@echo "make format        put the format right"
	@echo "make notebooks     execute the notebooks in place"
	@echo "make lab           open JupyterLab with everything installed"
	@echo "make clean         remove the virtual environment and caches"

demo: $(VENV)/.installed
	$(BIN)/dropattack demo --output demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# One after the other: each draws in software with all cores, which takes minutes.
test-browser: $(VENV)/.installed-dev
	DROPATTACK_BROWSER=1 $(BIN)/python -m pytest tests/landscape/interactive/test_browser.py tests/landscape/report/test_browser.py tests/dropattack/test_report.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: $(VENV)/.installed-dev
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

lab: $(VENV)/.installed-dev
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing (PyTorch is large: minutes, not seconds)"
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing with the tools for tests and notebooks (PyTorch is large: minutes, not seconds)"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
