# Two commands are all there is to know: `make search` and `make test`. Each creates .venv/ itself.

# The first Python that is new enough; say `make PYTHON=... search` to choose another.
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
# Tests that start Ray wait most of the time; those of a file share what is dear to set up. In the order of the folders
# the files that take minutes come early: by the number of their tests, as xdist has it, they would come last.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: search test test-fast coverage check bench reproduce chaos clean

search: .venv/installed  ## search on data/wafers.parquet if it is there, else on synthetic wafers
	$(BIN)/python -m search.run --space balanced_cnn.yaml --time 4m

test: .venv/installed-test  ## every test
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: .venv/installed-test  ## without those that start Ray or a process
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

coverage: .venv/installed-test  ## every test, and which lines and branches none of them reaches
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov

check: .venv/installed-test  ## style, types, and whether a secret was committed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString

bench: .venv/installed  ## the speed of the training engine
	$(BIN)/python -m benchmarks.engine

reproduce: .venv/installed  ## the project deck's trainings, under its protocol and ours; needs data/wafers.parquet
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.deck

chaos: .venv/installed-test  ## searches that are killed, starved and lied to, for half an hour; Linux, as root, with cc
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.chaos --minutes 30

clean:  ## remove the environment; data/ and results/ stay
	rm -rf .venv

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one, or say make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv .venv

# Torch and what it brings are several GB: the first call takes some minutes.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv/ (about 6 GB, some minutes, once)"
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) --no-build-isolation --editable ".[test]"
	@touch $@
