# Everything here sets itself up: a virtual environment in .venv, filled from the package index that pip is set to use.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
PORT ?= 4100
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
PINS := pyproject.toml constraints.txt
WORKERS ?= 2
LITELLM := 1.109.1
GENAI := 0.2.3
TENSORZERO := 2026.6.0
OPENAI := 3.54.0
ROUNDS ?= 50
MINUTES ?= 10
REQUESTS ?= 100000
SMALL := agentbudget==0.4.0 floe-guard==0.25.2 agent-budget-guard==0.2.0 tokenbudget==0.1.2 openai==3.54.0

.DEFAULT_GOAL := help
.PHONY: help run test lint format mutants bench bench-capture bench-gateway bench-dashboard matrix bench-budgets chaos soak fuzz screenshots catalog constraints clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

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

run: $(VENV)/.ready ## the gateway on http://127.0.0.1:4100 with the ledger in force; make run PORT=4200
	@$(BIN)/tally up --port $(PORT)

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

build/matrix-venv/.ready: $(VENV)/.made $(PINS)
	@echo "Making build/matrix-venv: older clients, LiteLLM, LangChain"
	@$(BIN)/python -m venv build/matrix-venv
	@build/matrix-venv/bin/python -m pip install -qq --disable-pip-version-check --editable . \
	  openai==2.54.0 litellm==1.106.2 langchain-openai brotli
	@touch $@

matrix: $(VENV)/.tools build/matrix-venv/.ready ## every client by every case, older clients too; 10,000 calls at once
	@MATRIX_CALLS=10000 $(BIN)/python -m pytest -n $(WORKERS) tests/matrix
	@timeout -k 10 900 build/matrix-venv/bin/python tests/matrix/matrix_script.py

build/peers/capture.ready: $(VENV)/.made
	@echo "Making the environments of the other ways to capture calls"
	@for peer in otel openinference litellm-callback; do $(BIN)/python -m venv build/peers/$$peer || exit 1; done
	@build/peers/otel/bin/python -m pip install -qq --disable-pip-version-check --pre \
	  opentelemetry-instrumentation-genai-openai
	@build/peers/otel/bin/python -m pip install -qq --disable-pip-version-check openai==$(OPENAI) opentelemetry-sdk
	@build/peers/openinference/bin/python -m pip install -qq --disable-pip-version-check \
	  openinference-instrumentation-openai openai==$(OPENAI) opentelemetry-sdk
	@build/peers/litellm-callback/bin/python -m pip install -qq --disable-pip-version-check litellm==1.106.2 mcp
	@touch $@

bench-capture: $(VENV)/.tools build/peers/capture.ready ## what each way of capturing records of what was served, and costs
	@$(BIN)/python benchmarks/capture.py --docs docs/explanation/capture-matrix.md --profile

bench: $(VENV)/.tools ## every benchmark without a target of its own
	@for script in $(filter-out benchmarks/mutants.py benchmarks/chaos.py benchmarks/budgets.py benchmarks/budget_trace.py benchmarks/gateway_budgets.py benchmarks/soak.py benchmarks/fuzz.py benchmarks/gateway.py benchmarks/dashboard.py benchmarks/capture.py benchmarks/_%,$(sort $(wildcard benchmarks/*.py))); do \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

build/peers/%/bin/python:
	@$(PYTHON) -m venv build/peers/$*
	@$@ -m pip install -qq --disable-pip-version-check $(if $(filter budgets,$*),$(SMALL),litellm==1.106.2)

bench-budgets: $(VENV)/.tools build/peers/budgets/bin/python build/peers/litellm/bin/python ## can a budget be overspent? beside other libraries
	@$(BIN)/python benchmarks/budgets.py
	@$(BIN)/python benchmarks/gateway_budgets.py
	@$(BIN)/python benchmarks/budget_trace.py

build/peers/tensorzero/.made:
	@$(PYTHON) -m venv build/peers/tensorzero
	@build/peers/tensorzero/bin/python -m pip install -qq --disable-pip-version-check tensorzero==$(TENSORZERO)
	@touch $@

build/peers/litellm-proxy/.made:
	@$(PYTHON) -m venv build/peers/litellm-proxy
	@build/peers/litellm-proxy/bin/python -m pip install -qq --disable-pip-version-check 'litellm[proxy]==1.106.2'
	@touch $@

bench-gateway: $(VENV)/.tools build/peers/tensorzero/.made build/peers/litellm-proxy/.made ## what a request and a chunk cost, beside nginx (where installed), TensorZero, LiteLLM
	@$(BIN)/python benchmarks/gateway.py

bench-dashboard: $(VENV)/.tools ## every page and the usual clicks over a large ledger, in a browser
	@$(BIN)/python benchmarks/dashboard.py

chaos: $(VENV)/.tools ## what is lost when processes die, disks fill up, the power goes? ROUNDS=50
	@$(BIN)/python benchmarks/chaos.py --rounds $(ROUNDS) --power $(ROUNDS)
	@$(BIN)/python benchmarks/chaos.py --rounds $(ROUNDS) --store postgres
	@$(BIN)/python benchmarks/chaos.py --gateway --rounds $(ROUNDS)
	@$(BIN)/python benchmarks/chaos.py --gateway --rounds $(ROUNDS) --store postgres

soak: $(VENV)/.tools ## ten minutes of a gateway at 200 requests/s: memory, descriptors, entries; MINUTES=10
	@$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

fuzz: $(VENV)/.tools ## 100,000 damaged requests against the gateway; REQUESTS=100000
	@$(BIN)/python benchmarks/fuzz.py --requests $(REQUESTS)

screenshots: $(VENV)/.tools ## pictures of every page, light and dark, wide and narrow, into docs/images
	@$(BIN)/python tests/pages/screenshots.py

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
