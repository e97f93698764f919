# Each target installs what it needs: a fresh clone requires only Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The peers of `make bench` have their own environment, because their dependencies differ.
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
LINE_PEERS := .venv-line-peers
LINE_PEERS_STAMP := $(LINE_PEERS)/.installed
# So has the client that the open inference protocol is tested with.
TRITONCLIENT := .venv-tritonclient
TRITONCLIENT_STAMP := $(TRITONCLIENT)/.installed
# And the programs that read exports; Ultralytics brings torch, and its other dependencies do not fit those of the rest.
READERS := .venv-readers
READERS_STAMP := $(READERS)/.installed
ULTRALYTICS := .venv-ultralytics
ULTRALYTICS_STAMP := $(ULTRALYTICS)/.installed
# uv from PATH, else one installed into the environment.
UV = $$(command -v uv || echo $(BIN)/uv)
# What torch needs on a GPU alone: the CPU lock leaves it out. Without the other CUDA libraries torch cannot be imported.
GPU_ONLY := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cuda-cccl nvidia-cusolver nvidia-nvtx triton

# Tests start hundreds of processes: each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast fuzz fuzz-files chaos soak test-elsewhere test-readme check format docs readers bench bench-jobs bench-lines bench-gateway bench-accuracy lock install clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(STAMP)  ## Run the demo, in about a minute
	$(BIN)/pigeonhole demo

# Integration tests wait for processes that start, the others compute: both run at once, in more processes than there are
# cores (tests/conftest.py has the order). Each file goes as a whole to the process that is free next: its tests share
# what its fixtures make.
# A first run compiles the tests, beside the types, which take one core: else each of the processes would.
test: $(STAMP) $(TRITONCLIENT_STAMP)  ## Everything that CI checks
	@$(BIN)/python -m pytest --quiet --collect-only >$(VENV)/collected.log 2>&1 & $(MAKE) --no-print-directory check; checked=$$?; wait; exit $$checked
	$(BIN)/python -m pytest -q --numprocesses 4 --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)  ## Tests that need no server
	$(BIN)/python -m pytest -q -m "not integration" --numprocesses 2 --dist worksteal

test-elsewhere: $(STAMP)  ## Tests that compute, as on two older processors; 5 minutes. One library alone: NAMES="numpy onednn"
	$(BIN)/python -m tests.elsewhere $(NAMES)

test-readme: $(STAMP)  ## Type README's commands in a clone, with pip and from a wheel; 20 minutes. One way alone: WAY=wheel
	$(BIN)/python -m tests.readme $(WAY)

fuzz: $(STAMP)  ## Property tests with new seeds and a hundred times the examples; prints how to reproduce what fails
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile fuzz --timeout 0 --numprocesses 2 --dist worksteal

fuzz-files: $(STAMP)  ## Decode mutated files of every format, some minutes; prints how to repeat a finding. FLAGS="--count 200000"
	$(BIN)/python -m benchmarks.fuzz_files $(FLAGS)

check: $(STAMP)  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## Format, and fix what can be fixed automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(STAMP)  ## Faults at every named step of a job, of what is around it, and at random; two hours. SEED=7; one part alone: STEPS="shard,end.manifest"
	$(BIN)/python -m benchmarks.steps --steps "$(STEPS)"
	$(if $(STEPS),,$(BIN)/python -m benchmarks.surroundings)
	$(if $(STEPS),,$(BIN)/python -m benchmarks.schedules $(if $(SEED),--seed $(SEED)))
	$(if $(STEPS),,$(BIN)/python -m benchmarks.recovery --seed $(or $(SEED),0))

soak: $(STAMP)  ## Jobs, a line and a hot folder for an hour under random faults: is anything lost, does any process grow? SEED=7
	$(BIN)/python -m benchmarks.soak --minutes 60 --seed $(or $(SEED),0)

bench: $(STAMP) $(PEERS_STAMP)  ## Images per second, compared with other software; a quarter of an hour
	$(BIN)/python -m benchmarks.throughput

bench-jobs: $(STAMP)  ## Latency, throughput and memory of jobs; four minutes. Another checkout beside it: BASELINE=../before
	$(BIN)/python -m $(if $(BASELINE),benchmarks.before_after $(BASELINE),benchmarks.job_flow)

bench-lines: $(STAMP) $(LINE_PEERS_STAMP)  ## How soon pushed images are answered, compared with other software; 40 minutes. One part: PARTS="idle"
	$(BIN)/python -m benchmarks.lines $(PARTS)

bench-gateway: $(STAMP) $(LINE_PEERS_STAMP)  ## The parts of bench-lines that push over HTTP; then gateways, hot folders and telegrams that are killed; an hour
	$(BIN)/python -m benchmarks.lines gateway_idle gateway_cpu gateway_saturated gateway_peers gateway_slow; measured=$$?; \
	$(BIN)/python -m benchmarks.chaos_gateway && $(BIN)/python -m benchmarks.chaos_hot_folder \
	&& $(BIN)/python -m benchmarks.chaos_telegrams && exit $$measured

bench-accuracy: $(STAMP)  ## Train every network on data in ../shared/data, for the tutorial's figures; most of an hour
	$(BIN)/python -m benchmarks.accuracy

docs: $(STAMP)  ## Generate docs/commands.md and docs/settings.md
	$(BIN)/python docs/generate.py

lock: $(STAMP)  ## Resolve the dependencies again, without an index host in the files
	for set in "requirements.lock" "requirements-dev.lock --group dev"; do \
		$(UV) pip compile pyproject.toml -o $$set --quiet --upgrade --universal --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" || exit 1; \
	done
	$(UV) pip compile pyproject.toml -o requirements-cpu.lock --constraint requirements.lock \
		$(addprefix --no-emit-package ,$(GPU_ONLY)) --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"
	$(UV) pip compile --group client -o requirements-client.lock --constraint requirements.lock \
		--quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock"
	for peers in benchmarks/peers benchmarks/peers/lines; do \
		$(UV) pip compile $$peers/requirements.in -o $$peers/requirements.txt --constraint requirements.lock \
			--quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
			--custom-compile-command "make lock" || exit 1; \
	done
	$(UV) pip compile tests/tritonclient/requirements.in -o tests/tritonclient/requirements.txt \
		--quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock"
	for set in "requirements" "ultralytics --constraint requirements.lock"; do \
		$(UV) pip compile tests/readers/$${set%% *}.in -o tests/readers/$${set%% *}.txt $${set#$${set%% *}} \
			--quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
			--custom-compile-command "make lock" || exit 1; \
	done

readers: $(READERS_STAMP) $(ULTRALYTICS_STAMP)  ## Install the programs that read exports; without them, their tests are skipped

install: $(STAMP)  ## Make the environment .venv

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pigeonhole needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	@if command -v uv >/dev/null; then \
		test -x $(BIN)/python || { echo "creating $(VENV) with uv"; uv venv --quiet --python $(PYTHON) $(VENV); }; \
	else \
		test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }; \
		$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
		test -x $(BIN)/uv || { echo "installing uv into $(VENV)"; $(BIN)/python -m pip install --quiet uv; }; \
	fi
	@echo "installing the pinned dependencies (torch and its CUDA libraries unpack to about 5 GB; minutes the first time)"
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(PEERS_STAMP): benchmarks/peers/requirements.txt | $(STAMP)
	@echo "installing the peers of make bench into $(PEERS) (torch comes from uv's cache)"
	@test -x $(PEERS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(PEERS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(PEERS)/bin/python benchmarks/peers/requirements.txt
	@touch $@

$(LINE_PEERS_STAMP): benchmarks/peers/lines/requirements.txt | $(STAMP)
	@echo "installing the peers of make bench-lines into $(LINE_PEERS) (torch comes from uv's cache)"
	@test -x $(LINE_PEERS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(LINE_PEERS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(LINE_PEERS)/bin/python benchmarks/peers/lines/requirements.txt
	@touch $@

$(TRITONCLIENT_STAMP): tests/tritonclient/requirements.txt | $(STAMP)
	@echo "installing tritonclient into $(TRITONCLIENT), for a test"
	@test -x $(TRITONCLIENT)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(TRITONCLIENT)
	@$(UV) pip sync --quiet --compile-bytecode --python $(TRITONCLIENT)/bin/python tests/tritonclient/requirements.txt
	@touch $@

$(READERS_STAMP): tests/readers/requirements.txt | $(STAMP)
	@echo "installing the readers of exports into $(READERS)"
	@test -x $(READERS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(READERS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(READERS)/bin/python tests/readers/requirements.txt
	@touch $@

$(ULTRALYTICS_STAMP): tests/readers/ultralytics.txt | $(STAMP)
	@echo "installing Ultralytics into $(ULTRALYTICS) (torch comes from uv's cache)"
	@test -x $(ULTRALYTICS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(ULTRALYTICS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(ULTRALYTICS)/bin/python tests/readers/ultralytics.txt
	@touch $@

clean:  ## Remove the environment and caches
	rm -rf $(VENV) $(PEERS) $(LINE_PEERS) $(TRITONCLIENT) $(READERS) $(ULTRALYTICS) .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-output demo-line-output
