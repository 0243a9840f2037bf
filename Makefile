# Needs Python 3.11 or newer and make; the rest is installed into .venv at the versions of
# constraints.txt. `make demo` and `make test` are all that a fresh clone needs.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell \
	$(name) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $(name))))
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types docs bench wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: $(VENV)/.core ## explain images with the built-in model, offline; the page is demo/index.html
	$(BIN)/moreaugrad demo --out demo

test: $(VENV)/.test ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## check the types
	$(BIN)/mypy

docs: $(VENV)/.dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.test ## run the benchmarks; they read the data folder named by MOREAUGRAD_DATA
	$(BIN)/python -m benchmarks

wheel: $(VENV)/.dev ## build the source archive, and from it the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build --quiet

clean: ## remove what was built, but not .venv
	rm -rf build dist site demo out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer with venv and pip is needed;" \
		"install it, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# torch first, at its exact version: an open request would fetch the newest build for CUDA.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo "Installing torch into $(VENV) ..."
	@$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.core: pyproject.toml $(VENV)/.torch
	@echo "Installing moreaugrad into $(VENV) ..."
	@$(INSTALL) --quiet --editable .
	@touch $@

$(VENV)/.test $(VENV)/.dev: $(VENV)/.%: pyproject.toml $(VENV)/.torch
	@echo "Installing moreaugrad[$*] into $(VENV) ..."
	@$(INSTALL) --quiet --editable ".[$*]"
	@touch $@
