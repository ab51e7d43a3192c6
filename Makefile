# `make run` and `make test` need Python 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080
BIN = $(VENV)/bin

.PHONY: run test lint format fuzz bench clean

run: $(VENV)/.installed
	@echo "Serving http://127.0.0.1:$(PORT)/  (Ctrl-C ends it)"
	@exec $(BIN)/sockact exec --listen web=tcp:127.0.0.1:$(PORT) -- $(BIN)/python examples/http_hello.py

# How many tests run at a time. Those of one file follow each other, and some need a process
# without any other thread.
WORKERS ?= 3
test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v mandoc >/dev/null; then set -x; mandoc -T lint -W warning man/*; \
	else echo "mandoc is not installed: the manual pages were not checked"; fi

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# How many seconds of random input the parsers get.
FUZZ_SECONDS ?= 20
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz.unitfile --seconds $(FUZZ_SECONDS)

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench.launch
	$(BIN)/python -m tests.bench.listeners
	$(BIN)/python -m tests.bench.rendezvous

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
