# Headrace. `make` lists what there is; every target sets up what it needs in .venv.

SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where `headrace demo` keeps its bundles and state.
WORKSPACE ?= .headrace
# How many processes share the tests. A file stays with one; in the order of names the slow ones, those of
# chaos and deploy, begin early.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types layers contract unit bench-cascade bench-init bench-client bench-users bench-search bench-diversity bench-prerank bench-ranker-latency bench-ranking bench-quality bench-training bench-catalogue bench-ann bench-telemetry chaos format docs dist check-dist protos clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.installed  ## make .venv with everything in it

# torch goes first: a requirement resolved together with the others may pull another build of it.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## train on MovieLens, start a local cluster, search it; stays up until Ctrl-C
	$(BIN)/headrace demo --workspace $(WORKSPACE)

test: setup  ## run all tests, those on a real Ray cluster included
	$(PYTEST)

check: lint types layers contract unit  ## what every commit passes

lint: setup  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## static types
	$(BIN)/mypy

layers: setup  ## who may import whom
	$(BIN)/lint-imports --no-logo

contract: setup  ## the .proto files are clean; a unit test compares the generated code
	cd protos && ../$(BIN)/buf lint

unit: setup  ## the tests that need no cluster
	$(PYTEST) -m 'not cluster'

bench-cascade: setup  ## train both recipes, the shop's with three seeds, and rank their held-out queries, a sample of them through a cluster (1 hour; ARGS=)
	$(BIN)/python -m tests.bench.cascade $(ARGS)

chaos: setup  ## faults and operations on a real cluster under load, 100,000 searches (20+ minutes); SEED=
	$(BIN)/python -m tests.chaos --requests 100000 $(if $(SEED),--seed $(SEED))

bench-init: setup  ## from Parquet files of 50,000 items to the first good answer (10 minutes); ARGS="--items 5000"
	$(BIN)/python -m tests.bench.init $(ARGS)

bench-overload: setup  ## three times the load that a cluster can carry, and sick shards (6 minutes; WORKLOAD= a trained workspace, ARGS=)
	$(BIN)/python -m tests.bench.overload $(if $(WORKLOAD),--workspace $(WORKLOAD)) $(ARGS)

bench-search: setup  ## Headrace, Ray Serve and one process serve the same searches, side by side (12 minutes); ARGS=
	$(BIN)/python -m tests.bench.search $(ARGS)

bench-shards: setup  ## 300 bundles, planning, loading, refusals and chaos on real clusters (20+ minutes)
	$(BIN)/python -m tests.bench.shards

bench-telemetry: setup  ## what metrics, logs and traces cost a search (a minute)
	$(BIN)/python -m tests.bench.telemetry

bench-client: setup  ## what the hop over a router costs a call of one stage (a minute)
	$(BIN)/python -m tests.bench.client $(ARGS)

bench-users: setup  ## what a read of a user and a recorded event cost in LMDB and in Redis (half a minute)
	$(BIN)/python -m tests.bench.users

bench-diversity: setup  ## what pages that are not all of one kind cost a router (seconds)
	$(BIN)/python -m tests.bench.diversity

bench-ranker-latency: setup  ## what each block of rankers costs for 200 candidates (3 minutes; ARGS=)
	$(BIN)/python -m tests.bench.ranker_latency $(ARGS)

bench-prerank: setup  ## 10,000 candidates pre-ranked on one core, and what dropping features costs (5 minutes)
	$(BIN)/python -m tests.bench.prerank
	$(BIN)/python -m tests.bench.prerank_groups

bench-ranking: setup  ## rankers beside LightGBM and logistic regression (an hour); needs HEADRACE_DATA_DIR; ARGS=--quick
	$(BIN)/python -m tests.bench.ranking $(ARGS)

bench-quality: setup  ## recipes trained and ranked beside other libraries; needs HEADRACE_DATA_DIR; ARGS="--only next_purchase"
	$(BIN)/python -m tests.bench.quality $(ARGS)

bench-training: setup  ## training beside a loop written by hand (3 minutes); needs HEADRACE_DATA_DIR
	$(BIN)/python -m tests.bench.training $(ARGS)

bench-catalogue: setup  ## a million items embedded, indexed and deployed, a worker killed (15 minutes); needs HEADRACE_DATA_DIR
	$(BIN)/python -m tests.bench.catalogue $(ARGS)

bench-ann: setup  ## a million vectors in the retrieval service, four kinds of index (10 minutes, 8 GiB)
	$(BIN)/python -m tests.bench.ann

fuzz: setup  ## every public decoder asked with altered input (SECONDS=60 in all, and the start of a process for each; ARGS=)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

soak: setup  ## searches, events, moves, flips, kills and abuse together for an hour; MINUTES=10
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60) $(ARGS)

format: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: setup  ## build wheel and sdist into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

check-dist: dist  ## install the wheel into empty environments, and run client and demo from it (10 minutes; ARGS=--light)
	$(BIN)/python -m tests.packaging.check $(ARGS)

docs: setup  ## build the documentation into build/site, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

protos: setup  ## regenerate the code of the contract
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m protos.generate

clean:  ## remove what the targets made, the demo's workspace included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis $(WORKSPACE)
