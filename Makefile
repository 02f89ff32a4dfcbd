# Everything here works on a fresh machine with Python 3.11+: what a target needs, it installs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_MODULES := tests/clients/node/node_modules

# Compiled modules are kept, whatever the environment says: without them each process compiles all of them again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run install test check style contracts types types-backend units lint bench eval faults lock clean

run:
	@backend/start.sh

install:
	@backend/start.sh install

# Tests wait more than they compute: three at a time keep two cores busy, and more would miss their times.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Several targets at once, the output of each in one piece.
TOGETHER := $(MAKE) --no-print-directory --output-sync=target --jobs 3

test: $(VENV)/.dev $(NODE_MODULES)/.package-lock.json
	@$(TOGETHER) style contracts types
	$(PYTEST) --durations=20

# For the loop of work, less than a minute: types of backend/ alone, unit tests without the slow ones, few examples each.
check: $(VENV)/.dev
	@$(TOGETHER) style contracts types-backend units

style: $(VENV)/.dev
	$(BIN)/ruff check backend tests bench evals
	$(BIN)/ruff format --check backend tests bench evals

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.dev
	$(BIN)/pyright

types-backend: $(VENV)/.dev
	$(BIN)/pyright backend

units: $(VENV)/.dev
	$(PYTEST) -n 2 -m "not slow" --hypothesis-profile quick tests/unit tests/architecture

lint: $(VENV)/.dev
	$(BIN)/ruff check --fix backend tests bench evals
	$(BIN)/ruff format backend tests bench evals
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

bench: $(VENV)/.dev
	$(BIN)/python -m bench

# The sets in EVAL_DATA (eval-data/), or your own questions: make eval FILE=questions.csv. See docs/evaluation.md.
eval: $(VENV)/.dev
	@$(BIN)/python -m evals $(FILE) $(ARGS)

# Thousands of faults, a quarter of an hour; `make test` has a short one. See docs/faults.md.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults

# Locks are made with uv: `pip install uv`. No registry is named in them.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--override backend/requirements-overrides.txt
lock:
	$(COMPILE) backend/requirements.in -o backend/requirements.txt
	$(COMPILE) backend/requirements-providers.in -c backend/requirements.txt -o backend/requirements-providers.txt
	$(COMPILE) backend/requirements-local.in -c backend/requirements.txt -o backend/requirements-local.txt
	$(COMPILE) backend/requirements-dev.in -c backend/requirements-local.txt -c backend/requirements-providers.txt -c backend/requirements.txt \
		-o backend/requirements-dev.txt

$(VENV)/.dev: backend/requirements-dev.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r backend/requirements-dev.txt
	@touch $(VENV)/.dev $(VENV)/.run

# nginx, Node, npm and curl from Debian where they are missing, then the packages of npm.
$(NODE_MODULES)/.package-lock.json: tests/clients/node/package-lock.json
	@tests/clients/install.sh
	@touch $@

clean:
	rm -rf $(VENV) $(NODE_MODULES) .pytest_cache .ruff_cache .hypothesis
