# Everything a newcomer types. Each target makes .venv when it is absent, and again what changed in pyproject.toml or
# constraints.txt asks for. No Python but the standard library is needed beforehand.
#
#   make demo         the paper's claims on real images, minutes on a CPU (core dependencies only)
#   make test         lint, types, architecture and the tests
#   make check        lint, types and architecture only: seconds
#   make docs         the documentation site, into build/site (installs MkDocs into .venv)
#   make venv         everything, all extras
#   make peers        torchvision and timm beside it, for tests that compare with them (.venv-peers; never needed to use reslearn)
#
# PYTHON chooses the interpreter (3.11 or later), TORCH_INDEX a further index that torch may come from, for example
#   make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu      (or .../cu130; in an existing .venv: make clean first)

PYTHON ?= python3
TORCH_INDEX ?=

BIN := .venv/bin
# A build from TORCH_INDEX carries a local version (2.13.0+cu130), which pip prefers to the plain 2.13.0.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-slow check lint venv peers clean

help:
	@sed -n 's/^#   make/  make/p' Makefile

demo: .venv/core.stamp
	$(BIN)/reslearn demo

# Files side by side, each in order: their fixtures are made once a file.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

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

# Without their dependencies: torch is that of .venv, which tests put before it on the path (tests/interop/peers.py).
peers: .venv-peers/full.stamp

.venv-peers/full.stamp:
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31 \
		pyyaml==6.0.4 huggingface_hub==2.4.0
	@touch $@

clean:
	rm -rf .venv .venv-peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp of its own, because a venv that broke off half-way has a python but no pip.
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
