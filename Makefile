# `make demo` and `make test` need Python 3.10 or newer and nothing else: they make .venv and install into it.
PYTHON ?= python3
BIN := .venv/bin
PROCESSORS ?= $(shell nproc 2>/dev/null || echo 2)

# the Python of `make oldest`, a version or a path; uv finds it, and downloads none
OLDEST ?= 3.10

.PHONY: install demo test test-slow torture audit oldest lint format clean

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("srood needs Python 3.10 or newer; set PYTHON to one" if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/srood demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# a process for each processor, and one thread in each; the tests of a file share what it makes, and stay together
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSORS) --dist loadfile

test-slow: install
	$(BIN)/pytest -m slow

# faults and bad inputs, hours of them; what happened goes into docs/reliability.md
torture: install
	$(BIN)/python -m torture --json results/torture.json --page docs/reliability.md

# known vulnerabilities of what is installed, insecure code, and the fuzzers for a minute each
audit: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	$(BIN)/python tools/audit_packages.py
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive -ll srood curate train
	$(BIN)/python -m torture "mutated images" "mutated outlier sets" --minutes 1

# the tests with the oldest versions that pyproject.toml claims, in an environment of its own
oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(PROCESSORS) --dist loadfile

.venv-oldest/installed: pyproject.toml | install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	rm -rf .venv-oldest
	$(BIN)/uv venv --quiet --seed --no-python-downloads --python $(OLDEST) .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[dev]'
	@touch $@

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-oldest .mypy_cache .pytest_cache .ruff_cache dist demo
