# Every target builds .venv first if it is missing or older than the lock file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup test types test-slow lint lock report publish clean clean-runs

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(READY)

setup: $(READY) ## Build the environment in .venv from the lock file (about 5 GB, torch's ordinary build)

test: $(READY) ## Lint and run the fast tests (a minute on two cores)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

types: $(READY) ## Check the types (half a minute)
	$(BIN)/mypy

test-slow: $(READY) ## Run the slow tests: learning on the phantom, torchrun, notebooks
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## Fix what ruff can fix, then show what is left
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

lock: $(READY) ## Resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" --output-file requirements.lock --quiet

report: PROFILE ?= $(or $(CXR_PROFILE),quick)
report: $(READY) ## Run the notebooks and write report/PROFILE/index.html (PROFILE=smoke, quick, cpu or full; ONLY=03 for one)
	$(BIN)/python -m cxr_helpers.report.pages --profile "$(PROFILE)" $(if $(ONLY),--only $(ONLY))

publish: PROFILE ?= cpu
publish: $(READY) ## Copy a finished study from report/PROFILE into notebooks, figures and results
	$(BIN)/python -m cxr_helpers.report.pages --publish --profile "$(PROFILE)"

clean-runs: ## Remove the weights of finished runs (55 to 140 MB each), keep their records
	@du -shc results/runs report/*/runs 2>/dev/null | tail -1
	find results/runs report -name '*.safetensors' -delete 2>/dev/null || true

clean: ## Remove the environment and caches, never data or results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
