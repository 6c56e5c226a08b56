# Everything a newcomer needs; `make` alone explains.
# A plain package index serves the CUDA build of PyTorch (some GB). For the CPU build give pip its index:
#   make quickstart PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin

# Packages are compiled where they are imported: with this set, every command would compile thousands of files again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart recipe test test-fast lint docs clean

help:
	@echo "make quickstart  install into .venv, then collect, clean, tokenize, train and report (5 to 13 minutes on 2 cores)"
	@echo "make recipe      the same set-up, then from raw text to aligned models and their comparison (under 25 minutes on two idle cores)"
	@echo "make test        the same set-up, then every test"
	@echo "make test-fast   the tests of single functions, for an edit's feedback (about 3 minutes on 2 cores)"
	@echo "make lint        ruff and mypy"
	@echo "make docs        the documentation as a site, in site/"
	@echo "make clean       remove .venv and caches; data/ and runs/ stay"

quickstart: .venv/.installed
	$(BIN)/python main.py fit --config configs/quickstart.yaml

recipe: .venv/.installed
	$(BIN)/python main.py recipe --config configs/recipes/quickstart.yaml

# Two at a time on two cores; more than four would each want their own copy of everything imported.
test: .venv/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-fast: .venv/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not distributed and not end_to_end and not peer"

lint: .venv/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: .venv/.installed
	$(BIN)/python -m mkdocs build --strict

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11: give another with PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) has no venv module: on Debian, apt install python3-venv"; exit 2; }

# The test tools are installed for both: what is installed is also what the quickstart reads.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e ".[test]"
	@touch $@

clean:
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
