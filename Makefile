# What a contributor types. Everything goes into a virtual environment; nothing outside this folder is changed.
#   make demo                     PYTHON=python3.12 chooses the interpreter, VENV=folder the environment
#   make lint test LOCKED=1       the exact versions of requirements/ci.txt

PYTHON ?= python3
VENV ?= .venv
# The lock file holds for one Python (the one its header names), so nothing but LOCKED=1 chooses it: strangers have other
# Pythons, and so has the CI matrix, which therefore must not be told by CI=true.
LOCKED ?=

LOCK := requirements/ci.txt
CONSTRAINT := $(if $(LOCKED),-c $(LOCK))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# One stamp per set of extras. Locked and free environments have stamps of their own, so that LOCKED=1 always installs.
STAMP := $(VENV)/.installed$(if $(LOCKED),-locked)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-rig test-rtx gpu-ci-dry-run lint lint-docker cov bench lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP)-cpu ## an environment with trtcalib and ONNX Runtime for the CPU

demo: $(STAMP)-cpu ## calibrate the embedded sample; results in demo-out/
	$(BIN)/trtcalib demo -o demo-out

test: $(STAMP)-cpu,test ## the whole test suite
	$(BIN)/python -m pytest

test-rig: ## real TensorRT bindings and PyCUDA over simulated libraries (Linux, Python 3.11)
	LOCKED=$(LOCKED) $(PYTHON) tests/rig/run.py

test-rtx: $(STAMP)-cpu,test,rtx ## NVIDIA's real TensorRT-RTX parser and builder, no GPU (Linux or Windows on x86_64)
	TRTCALIB_REQUIRE_RTX=1 $(BIN)/python -m pytest tests/rtx

gpu-ci-dry-run: ## docker/gpu-ci.sh over the rig's simulated TensorRT 10.16 and 11.4
	TRTCALIB_GPU_CI_DRY_RUN=1 LOCKED=$(LOCKED) $(PYTHON) tests/rig/run.py --only 10.16.1.11 --only 11.4.0.106 -- -s tests/rig/test_gpu_ci.py

lint: $(STAMP)-cpu,dev ## style, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-docker: $(STAMP)-cpu,dev ## Dockerfile, shell scripts, and the schemas of compose.yaml and the workflows
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck docker/gpu-ci.sh .ci/run .github/actions/lint-cache/lint.sh
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml

cov: $(STAMP)-cpu,test ## the test suite with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term-missing

bench: $(STAMP)-cpu,bench,rtx ## measure speed and memory (Python 3.10 to 3.12)
	$(BIN)/python tests/bench/run.py

lock: ## write requirements/ci.txt anew, from the newest versions (Python 3.11)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "the lock file is for Python 3.11: make lock PYTHON=python3.11" >&2; exit 1; }
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --quiet --disable-pip-version-check install '.[cpu,test,dev]'
	{ sed -n '/^#/p' $(LOCK); build/lock/bin/python -m pip freeze --exclude trtcalib; } > build/lock/ci.txt
	mv build/lock/ci.txt $(LOCK)
	rm -rf build/lock

clean: ## remove the environment, caches and results
	rm -rf $(VENV) build dist demo-out .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP)-%: pyproject.toml $(LOCK) | $(BIN)/python
	$(PIP) install $(CONSTRAINT) -e '.[$*]'
	@touch '$@'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "trtcalib needs Python 3.10 or newer, and $(PYTHON) is not: try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
