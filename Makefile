# Two commands: `make quickstart` and `make test`. Everything they need is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MECHINTERP_HOME ?= $(CURDIR)/.mechinterp
export HF_HUB_DISABLE_TELEMETRY := 1
export DAGSTER_DISABLE_TELEMETRY := 1
STUDY ?= organism

.PHONY: quickstart ui test lint types check-defs format export refresh clean

quickstart: $(VENV)/.installed ## Materialize the organism study, print its tables and three answers
	$(BIN)/mechinterp quickstart $(STUDY)

ui: $(VENV)/.installed ## Dagster UI on 127.0.0.1:3000, dashboards on 127.0.0.1:3001
	$(BIN)/mechinterp ui

test: $(VENV)/.installed lint types check-defs ## Everything that must hold before a commit lands
	$(BIN)/pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy mechinterp_assets resources

check-defs: $(VENV)/.installed
	DAGSTER_HOME= $(BIN)/dg check defs

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

export: $(VENV)/.installed ## One self-contained DuckDB file with all current tables: results.duckdb
	$(BIN)/mechinterp export results.duckdb

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean: ## Remove the environment and caches; state in MECHINTERP_HOME stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
