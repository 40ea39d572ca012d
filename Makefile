# `make test` and `make demo` need nothing but Python 3.11+ and make: they build .venv when it is missing or stale.
#
#   PYTHON=python3.12       the interpreter to build the environment with
#   TORCH_INDEX=URL         where torch comes from. On a machine without a GPU give PyTorch's index of CPU wheels here
#                           (pytorch.org's installation page shows it); empty: whatever pip is set up to use
#   ACCELERATOR=cpu|gpu     otherwise decided by looking for an NVIDIA driver

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
ACCELERATOR ?= $(shell tools/accelerator.sh)
DEMO ?= build/demo
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.built-for-$(ACCELERATOR)

.PHONY: env test test-fast demo lint clean

env: $(ENVIRONMENT)

$(ENVIRONMENT): setup.cfg pyproject.toml constraints.txt $(wildcard tools/*)
	PYTHON="$(PYTHON)" VENV="$(VENV)" ACCELERATOR="$(ACCELERATOR)" TORCH_INDEX="$(TORCH_INDEX)" tools/environment.sh
	touch $@

test: $(ENVIRONMENT) lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(ENVIRONMENT)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(ENVIRONMENT)
	PATH="$(abspath $(BIN)):$$PATH" recipes/demo.sh $(DEMO)

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
