# Two commands do all the set-up: `make run` fine-tunes a real model on this machine's CPU, `make test` passes the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# `make run ARGS="trainer.max_steps=3"` adds overrides
ARGS ?=

.PHONY: run test guarantees real bench lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

run: $(VENV)/.installed
	$(BIN)/python -m llmft model=smollm2_135m data=academic peft=lora optim.lr=1e-3 data.batching=grouped $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# every promise of the README, the slow tests too, and the proof that each test fails when its promise is broken
guarantees: $(VENV)/.installed
	$(BIN)/python -m pytest -m guarantees -n 2 --dist loadgroup
	$(BIN)/python tests/guarantees/mutations.py

# what needs the real model that `make run` fetches, or more time
real: $(VENV)/.installed
	$(BIN)/python -m pytest -m "real or slow" -n 1

PEERS := .venv-peers
$(PEERS)/.installed: benchmarks/peers.txt constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --requirement benchmarks/peers.txt
	touch $@

# llmft beside TRL and Seq2SeqTrainer, each in its own environment: tables into docs/performance.md, in about 12 minutes
bench: $(VENV)/.installed $(PEERS)/.installed
	$(BIN)/python benchmarks/train.py $(if $(wildcard ../shared/data),--rows-folder ../shared/data) --write $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

clean:
	rm -rf $(VENV) $(PEERS) dist build outputs
