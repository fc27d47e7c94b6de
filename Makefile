# Everything runs in .venv, which is made on first use; PYTHON chooses what it is made from, VENV where, and CONSTRAINTS
# with which versions.
PYTHON ?= python3
VENV ?= .venv
MINIMUM_PYTHON ?= python3.10
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
ROOMS := selection models trainers evaluation recipes
# The rooms under the name that they install by, for tools that read sources.
LINK_ROOMS = mkdir -p build/api/tithe && $(foreach room,$(ROOMS),ln -sfn ../../../$(room) build/api/tithe/$(room) &&) true

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(BIN)/.installed ## train on a tenth of the embedded corpus; ends with the path of the report
	$(BIN)/accelerate launch recipes/data_selection.py

test: $(BIN)/.installed ## run the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadscope

test-slow: $(BIN)/.installed ## run the tests that take over a minute or several processes, too
	$(BIN)/python -m pytest -q -m "slow or not slow"

test-minimum: ## run the tests with the lowest versions that pyproject.toml admits, in .venv-minimum
	$(MAKE) test PYTHON=$(MINIMUM_PYTHON) VENV=.venv-minimum CONSTRAINTS=constraints-minimum.txt
docs: $(BIN)/.documenting ## build the documentation into build/site; a warning is an error
	$(LINK_ROOMS) && NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: $(BIN)/.documenting ## show the documentation at http://127.0.0.1:8000, built again as it changes
	$(LINK_ROOMS) && NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

lint: $(BIN)/.linting ## ruff, and mypy on the library
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	mkdir -p build/types && ln -sfn ../.. build/types/tithe
	MYPYPATH=build/types $(BIN)/mypy $(ROOMS:%=-p tithe.%)

bench: $(BIN)/.benching ## compare with named peers, side by side
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/fused_loss.py
	$(BIN)/python benchmarks/expert_loop.py
	$(BIN)/python benchmarks/prompt_tuning.py
	$(BIN)/python benchmarks/slm_qa.py

# The seed of every target: the library with what the tests need, at the versions in CONSTRAINTS.
$(BIN)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[test]"
	touch $@

$(BIN)/.linting: $(BIN)/.installed
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[lint]"
	touch $@

$(BIN)/.documenting: $(BIN)/.installed
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

$(BIN)/.benching: $(BIN)/.installed
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[bench]"
	touch $@

.PHONY: help demo test test-slow test-minimum docs docs-serve lint bench
