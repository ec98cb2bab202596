# Two commands: `make demo` and `make test`. Both set up a virtual environment in .venv first.

VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 or later that is found; `make PYTHON=… test` takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo demo-trading test lint pytest fuzz campaign soak fault-matrix bench clean help

help:
	@echo "make demo    watch a real freqtrade trade, guarded, against a local exchange (about 90 s)"
	@echo "make demo-trading  watch it trade in margin accounts with real orders there (about 30 s)"
	@echo "make test    ruff, mypy and the tests"
	@echo "make fuzz    tens of thousands of random answers and events (about 20 minutes; FUZZ_FACTOR=3 for more)"
	@echo "make campaign  10,000 random lives of a bot that trades with money (90 minutes; SEQUENCES=100 for fewer)"
	@echo "make soak    several bots, 100 pairs, faults and kills (60 minutes; MINUTES=300 for more)"
	@echo "make fault-matrix   write docs/fault-matrix.md anew from what the tests observe"
	@echo "make bench   measure what it costs, beside what else there is, and write docs/benchmark.md (about 7 minutes)"
	@echo "make clean   remove the virtual environment and caches"

demo: $(VENV)/.package
	@$(BIN)/freqtrade-isolated-margin demo

demo-trading: $(VENV)/.package
	@$(BIN)/freqtrade-isolated-margin demo-trading

test: lint pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pytest: $(VENV)/.dev
	$(BIN)/pytest -n 3 --dist loadfile

fuzz: $(VENV)/.dev
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest tests/test_fuzz.py -n 0

SEQUENCES ?= 10000
campaign: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m trading.campaign --sequences $(SEQUENCES)

MINUTES ?= 60
soak: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m soak.soak --minutes $(MINUTES) --kills 20

fault-matrix: $(VENV)/.dev
	FAULT_MATRIX_WRITE=1 $(BIN)/pytest tests/test_fault_matrix.py -n 0

bench: $(VENV)/.bench
	PYTHONPATH=tests $(BIN)/python -m bench

$(VENV)/.package: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, with its venv module"; exit 1; }
	@echo "Setting up $(VENV) (freqtrade and what it needs; a minute or two, once) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.package
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
