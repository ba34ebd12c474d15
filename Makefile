# make demo | make test: each sets up the environment on a fresh machine and reuses it afterwards.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# An environment fits as long as the pins, the dependencies and this folder are the same: then nothing is installed.
STAMP := $(VENV)/.capbench-$(shell (cat pyproject.toml constraints.txt Makefile; pwd) | cksum | cut -d' ' -f1)
BIN := $(VENV)/bin

.PHONY: env demo test long lint browser twins clean

env: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "CapBench needs Python 3.11 or later; name one with PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	rm -f $(VENV)/.capbench-*
	touch $@

# Each captioner zero-shot and fine-tuned on the embedded data, then the leaderboard. Repeating it skips what is done.
demo: env
	$(BIN)/capbench run experiment=demo

test: env lint
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What takes minutes: every captioner with every strategy.
long: env
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m long

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The report is tested in a real Chromium; without one `make test` skips these tests and says so.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null || \
			{ echo "install chromium (on Debian: apt-get install chromium), then repeat"; exit 1; }; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends chromium; }

# Rebuild the tiny checkpoints that ship with the package (minutes; the result is committed).
twins: env
	OMP_NUM_THREADS=1 $(BIN)/python -m model_zoo.embedded.build
	OMP_NUM_THREADS=1 $(BIN)/python -m harness.metrics.embedded.build
	rm -f harness/modality/embedded/manifest.json
	$(BIN)/capbench modality fit out=harness/modality/embedded
	$(BIN)/python -c 'import json, pathlib; file = pathlib.Path("harness/modality/embedded/manifest.json"); \
		whole = json.loads(file.read_text()); kept = ("schema", "kind", "status", "identity", "files"); \
		file.write_text(json.dumps({key: whole[key] for key in kept}, indent=2) + "\n")' # not where and when it was made

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
