# What one does in a checkout. `make` alone prints the list.
# Paths are relative throughout, so that a checkout may stand in a folder with spaces in its name.

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
# Twice quiet: errors are printed, warnings about package indexes are not.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# One thread for each of the two test processes: they would otherwise fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations 5

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow check format gallery bench reproduce-mnist clean

help: ## print this list
	@echo 'usage: make TARGET [VARIABLE=VALUE ...]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo 'variables: PYTHON=python3.12 (3.11 to 3.13), TORCH_INDEX=URL (an index with another build of PyTorch)'

setup: $(STAMP) ## make .venv and install metvae into it, for development

$(BIN)/python:
	@$(PYTHON) -c '' 2>/dev/null || \
		{ echo 'metvae: error: PYTHON=$(PYTHON) does not run; name a Python 3.11 to 3.13' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "metvae: error: needs Python 3.11 to 3.13, not $$($(PYTHON) --version 2>&1): make setup PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing metvae and its tools into .venv (minutes, the first time)'
	@$(PIP) install -e '.[dev]' -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)')
	@touch $(STAMP)

train: setup ## train a model: make train ARGS='latent_dim=2 seed=1'
	@$(BIN)/metvae train $(ARGS)

test: setup ## run the tests: make test ARGS='-k hmc'
	@$(PYTEST) $(ARGS)

test-slow: setup ## run the tests that take longer
	@$(PYTEST) -m slow $(ARGS)

check: setup ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: setup ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

gallery: setup ## make the pictures of docs/gallery.md anew
	@docs/gallery.sh

bench: setup ## what each method's iteration costs: make bench ARGS='--quick'
	@$(BIN)/python -m benchmarks.speed $(ARGS)

reproduce-mnist: setup ## run or resume the MNIST table of docs/results.md (hours): make reproduce-mnist ARGS='--seeds 0'
	@$(BIN)/python -m benchmarks.study mnist_fc400 $(ARGS)

clean: ## remove .venv, caches and built packages; outputs/ and data/ stay
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
