# Two commands do all the set-up: `make run` fine-tunes a real model on this machine's CPU, `make test` passes the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# `make run ARGS="trainer.max_steps=3"` adds overrides
ARGS ?=
# the compiled sources of tests are kept beside them, also where the environment says otherwise: each process would compile them again
export PYTHONDONTWRITEBYTECODE :=

.PHONY: gguf run test guarantees real bench unsloth docs lint lowest newest compat sbom audit fuzz clean

# an environment with llmft and its development tools: $(call environment,FOLDER,CONSTRAINTS)
define environment
$(1)/.installed: pyproject.toml $(2)
	test -x $(1)/bin/python || $$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --constraint $(2) "torch==2.13.0"
	$(1)/bin/python -m pip install --quiet --constraint $(2) --editable ".[dev]"
	touch $$@
endef

$(eval $(call environment,$(VENV),constraints.txt))

run: $(VENV)/.installed
	$(BIN)/python -m llmft experiment=support $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# every promise of the README, the slow tests too, and the proof that each test fails when its promise is broken (2 minutes)
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

# Unsloth beside it, on a machine with a GPU: benchmarks/gpu_first_run.sh
UNSLOTH := .venv-unsloth
$(UNSLOTH)/.installed: benchmarks/unsloth.txt
	test -x $(UNSLOTH)/bin/python || $(PYTHON) -m venv $(UNSLOTH)
	$(UNSLOTH)/bin/python -m pip install --quiet --requirement benchmarks/unsloth.txt
	touch $@

unsloth: $(UNSLOTH)/.installed

# docs/ as a site, in build/site; a broken link ends it. To read it: $(BIN)/python -m http.server -d build/site
docs: $(VENV)/.installed
	$(BIN)/python -m zensical build --strict --clean

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# the lowest versions that pyproject.toml allows, in an environment of their own
LOWEST := .venv-lowest
$(eval $(call environment,$(LOWEST),constraints-lowest.txt))

lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadgroup tests/unit tests/integration/models/test_peft.py tests/integration/commands/test_export.py \
		tests/integration/serving/test_answers_match.py tests/integration/models/test_untrusted_models.py

# llama.cpp from its source, about 8 minutes of one core, to check exports with form=gguf; then `make test` runs those tests too
gguf: $(VENV)/.installed
	CMAKE_ARGS="-DLLAVA_BUILD=OFF" $(BIN)/python -m pip install --constraint constraints.txt --editable ".[gguf]"

# the newest versions that pyproject.toml allows (torch as in constraints.txt), in an environment of their own; on the Python of PYTHON=
NEWEST := .venv-newest
$(eval $(call environment,$(NEWEST),constraints-newest.txt))

newest: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadgroup tests/unit tests/guarantees tests/integration/models tests/integration/commands

# what llmft writes, opened with transformers 4: ids and logits are those of the trained model
COMPAT := .venv-compat
$(COMPAT)/.installed: constraints-compat.txt
	test -x $(COMPAT)/bin/python || $(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/python -m pip install --quiet --constraint constraints-compat.txt "torch==2.13.0" transformers peft sentencepiece protobuf
	touch $@

compat: $(VENV)/.installed $(COMPAT)/.installed
	$(BIN)/python -m pytest -m slow -s tests/integration/models/test_open_in_transformers4.py

# Tools that look at an environment from outside, in one of their own: no dependency of the project.
TOOLS := .venv-tools
$(TOOLS)/.installed:
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet "cyclonedx-bom==7.5.0" "pip-audit==2.10.1"
	touch $@

# a list of all that is installed, in CycloneDX's JSON: dist/sbom.json
sbom: $(VENV)/.installed $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --of JSON -o dist/sbom.json

# known faults of the pinned versions; asks pypi.org. Without --strict a package that was not found would pass as one without faults
audit: $(TOOLS)/.installed
	mkdir -p dist
	@$(TOOLS)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off 2>dist/audit.log \
		|| { tail -n 1 dist/audit.log; echo "audit: not done, or faults found (above); all of it in dist/audit.log" >&2; exit 1; }

# every parser of ours under many generated inputs (minutes)
fuzz: $(VENV)/.installed
	LLMFT_FUZZ=2000 $(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/robustness/test_fuzz.py

clean:
	rm -rf $(VENV) $(PEERS) $(UNSLOTH) $(LOWEST) $(NEWEST) $(COMPAT) $(TOOLS) dist build outputs
