# Every target sets up the environment it needs in .venv, from the packages pinned in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread for BLAS: with more, two processes on a small machine slow each other down by far more than they gain.
export OPENBLAS_NUM_THREADS ?= 1
MINUTES ?= 60
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: setup demo test fuzz lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the environment in .venv

$(STAMP): pyproject.toml constraints.txt edge_runtime/flatmodel/_gather.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(STAMP) ## see the whole loop on this machine, and its report in demo-report/
	$(BIN)/capnn demo

test: $(STAMP) ## run the tests; with CAPNN_DATA set, those on reference networks and images too
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

fuzz: $(STAMP) ## an hour of damaged files and plans, then thousands of random networks, through reader and slicer
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)
	$(BIN)/python -m tests.fuzz.graphs --minutes $(MINUTES)

lint: $(STAMP) ## ruff, mypy, and the directions in which packages may import each other
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## run the benchmarks but for the one that takes hours (methods); each prints one JSON object
	@for file in benchmarks/[a-z]*.py; do \
		name=$$(basename $$file .py); case $$name in command|data|http_load|light|literal_search|methods|profiles|service_process|wheels) continue;; esac; $(BIN)/python -m benchmarks.$$name --json || exit 1; \
	done

clean: ## remove the environment and what commands have made
	rm -rf $(VENV) demo-report cache-report fuzz-findings fuzz-failures build edge_runtime/flatmodel/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
