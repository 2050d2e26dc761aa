# Everything here sets itself up: a virtual environment in .venv, filled from the package index that pip is set to use.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
MODEL ?= gpt-4o
EXAMPLE := benchmarks/data/prompt.txt
REPLY := Twelve oak boards, three litres of linseed oil, delivery. 222.00 + 29.85 + 35.00 = 286.85: the sum is right.
MODELS ?= gpt-4o,gpt-5.2,claude-sonnet-5,gemini-2.5-pro
TEXT ?=
ANSWER ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
PINS := pyproject.toml constraints.txt
WORKERS ?= 2
LITELLM := 1.109.1
GENAI := 0.2.3

.DEFAULT_GOAL := help
.PHONY: help run test lint format mutants bench catalog constraints clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 20

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "tallystick needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; } \
	  || { echo "'$(PYTHON)' can make no virtual environment (its venv or pip module is missing)." >&2; \
	       rm -rf $(VENV); exit 1; }
	@$(PIP) install 'pip>=25.1'
	@touch $@

$(VENV)/.ready: $(VENV)/.made $(PINS)
	@echo "Installing tallystick"
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.made $(PINS)
	@echo "Installing tallystick and its development tools"
	@$(PIP) install --constraint constraints.txt --editable . --group dev
	@touch $(VENV)/.ready $@

run: $(VENV)/.ready ## count and price a text, e.g. make run TEXT=prompt.txt MODEL=gpt-5.2
	@$(BIN)/tally explain --model '$(MODEL)' --file '$(or $(TEXT),$(EXAMPLE))' $(if $(or $(ANSWER),$(if $(TEXT),,yes)),--answer '$(or $(ANSWER),$(REPLY))')
	@echo; echo "The same text on other models, with an answer of 500 tokens:"
	@$(BIN)/tally compare --models '$(MODELS)' '$(or $(TEXT),$(EXAMPLE))'

test: $(VENV)/.tools ## all checks: ruff, mypy, tests, coverage of core and wire
	@status=0; $(MAKE) --no-print-directory lint || status=1; \
	  $(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term || status=1; exit $$status

lint: $(VENV)/.tools ## ruff (rules and format) and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

format: $(VENV)/.tools ## lay out the code
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	@$(BIN)/ruff format .

mutants: $(VENV)/.tools ## do the tests notice when core and wire are broken?
	@$(BIN)/python benchmarks/mutants.py

bench: $(VENV)/.tools ## every benchmark but the mutants
	@for script in $(filter-out benchmarks/mutants.py benchmarks/_%,$(sort $(wildcard benchmarks/*.py))); do \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

catalog: $(VENV)/.tools ## rebuild the catalogue snapshot from downloaded sources; say what changed
	@rm -rf build/sources && mkdir -p build/sources
	@$(PIP) download --no-deps --only-binary :all: --dest build/sources litellm==$(LITELLM) genai-prices==$(GENAI)
	@cd build/sources && for wheel in *.whl; do ../../$(BIN)/python -m zipfile -e "$$wheel" .; done
	@$(BIN)/python -m tallystick.catalog.build --genai build/sources --litellm-version $(LITELLM) \
	  --litellm build/sources/litellm/model_prices_and_context_window_backup.json --out src/tallystick/catalog/snapshot.json

constraints: ## pin what a fresh installation resolves to now
	@rm -rf build/pins && $(PYTHON) -m venv build/pins
	@build/pins/bin/python -m pip install -qq --disable-pip-version-check 'pip>=25.1'
	@build/pins/bin/python -m pip install -qq --disable-pip-version-check --editable '.[all]' --group dev
	@build/pins/bin/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt

clean: ## remove what was built, the virtual environment included
	@rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
