# Two commands: `make quickstart` and `make test`. What they need is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MECHINTERP_HOME ?= $(CURDIR)/.mechinterp
export HF_HUB_DISABLE_TELEMETRY := 1
export DAGSTER_DISABLE_TELEMETRY := 1
STUDY ?= organism
FILE ?= results.duckdb
# Other programs that tests and benchmarks compare with, in an environment of their own.
PEERS := .venv-peers
# An older DuckDB, as colleagues may have it.
OLD_DUCKDB := .venv-old-duckdb

.PHONY: quickstart smollm2 reproduce ui test peers test-peers old-duckdb lint types check-defs format export refresh clean

quickstart: $(VENV)/.installed ## Materialize the organism study, print its tables and three answers
	$(BIN)/mechinterp quickstart $(STUDY)

smollm2: $(VENV)/.installed ## The same for a real language model (its corpus: MECHINTERP_CORPUS, or the hub)
	$(BIN)/mechinterp fetch smollm2
	$(BIN)/mechinterp quickstart smollm2

reproduce: $(VENV)/.installed ## Run a study and print its results beside the published numbers (STUDY=gpt2-small)
	$(BIN)/mechinterp reproduce $(STUDY)

ui: $(VENV)/.installed ## Dagster UI on 127.0.0.1:3000, dashboards on 127.0.0.1:3001
	$(BIN)/mechinterp ui

test: $(VENV)/.installed $(OLD_DUCKDB)/.installed lint types check-defs ## Everything that must hold before a commit lands
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

peers: $(PEERS)/.installed ## sae-lens and sae-dashboard beside this project, for comparisons

test-peers: $(PEERS)/.installed ## Agreement with sae-lens
	$(PEERS)/bin/python -m pytest tests/peers

old-duckdb: $(VENV)/.installed $(OLD_DUCKDB)/.installed ## The catalog and exports, read by DuckDB 1.1
	$(BIN)/pytest tests/storage/test_old_clients.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy mechinterp_assets

check-defs: $(VENV)/.installed
	DAGSTER_HOME= $(BIN)/dg check defs

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

export: $(VENV)/.installed ## One self-contained DuckDB file with all current tables (FILE=results.duckdb)
	$(BIN)/mechinterp export $(FILE)

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,fast,gguf,mcp]"
	$(BIN)/python -m mechinterp_assets.sae.cpu_kernels
	touch $@

# sae-dashboard asks for transformer_lens < 3 and works with 3.9, which this project and sae-lens
# share: it is installed without its dependencies, whose used part is named here.
$(PEERS)/.installed: benchmarks/peers-constraints.txt pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --upgrade pip
	$(PEERS)/bin/pip install --quiet --constraint benchmarks/peers-constraints.txt torch
	$(PEERS)/bin/pip install --quiet --constraint benchmarks/peers-constraints.txt --editable . \
		hypothesis pytest sae-lens dataclasses-json einops wandb
	$(PEERS)/bin/pip install --quiet --constraint benchmarks/peers-constraints.txt --no-deps \
		sae-dashboard decode-clt eindex-callum
	touch $@

$(OLD_DUCKDB)/.installed:
	$(PYTHON) -m venv $(OLD_DUCKDB)
	$(OLD_DUCKDB)/bin/pip install --quiet "duckdb==1.1.*"
	touch $@

clean: ## Remove the environment and caches; state in MECHINTERP_HOME stays
	rm -rf $(VENV) $(PEERS) $(OLD_DUCKDB) .mypy_cache .ruff_cache .pytest_cache
