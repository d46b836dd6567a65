# Everything a newcomer types. Each target creates .venv if it is missing, and updates it after a
# change of pyproject.toml or constraints.txt. Python 3.11 or later is all that must be installed.
#
#   make demo         the paper's claims on real images, minutes on a CPU (core dependencies only)
#   make test         lint, types, architecture and the tests
#   make check        lint, types and architecture only: under a minute
#   make docs         the documentation site, into build/site (installs MkDocs into .venv)
#   make venv         .venv with all extras
#   make peers        torchvision and timm in .venv-peers, for tests that compare with them
#
# PYTHON chooses the interpreter. TORCH_INDEX adds an index for torch, for example
#   make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu
# (or .../cu130; in an existing .venv run `make clean` first).

PYTHON ?= python3
TORCH_INDEX ?=

BIN := .venv/bin
# A build from TORCH_INDEX has a local version (2.13.0+cu130), which pip prefers to 2.13.0.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-slow check lint venv peers clean

help:
	@sed -n 's/^#   make/  make/p' Makefile

demo: .venv/core.stamp
	$(BIN)/reslearn demo

# Test files run in parallel, in the order of tests/conftest.py. Within a file tests run in order,
# so its fixtures are made once.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: .venv/full.stamp
	$(BIN)/python -m pytest -m "slow and not gpu"

check: lint
	$(BIN)/python -m pytest -q tests/test_architecture.py

lint: .venv/full.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

venv: .venv/full.stamp

# Without dependencies: tests use the torch of .venv (benchmarks/peers.py).
peers: .venv-peers/full.stamp

.venv-peers/full.stamp:
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31 \
		pyyaml==6.0.4 huggingface_hub==2.4.0
	@touch $@

clean:
	rm -rf .venv .venv-peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A separate stamp: an interrupted venv has a python but no pip.
.venv/created.stamp:
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/core.stamp: pyproject.toml constraints.txt | .venv/created.stamp
	@echo "Installing the core dependencies into .venv (once; torch is large)"
	$(INSTALL) --editable .
	@touch $@

.venv/docs.stamp: pyproject.toml constraints.txt | .venv/created.stamp
	@echo "Installing MkDocs and what it needs into .venv (once)"
	$(INSTALL) --editable ".[docs]"
	@touch $@

.venv/full.stamp: pyproject.toml constraints.txt | .venv/created.stamp
	@echo "Installing everything into .venv (once; torch is large)"
	$(INSTALL) --editable ".[all,test]"
	@touch .venv/core.stamp $@
