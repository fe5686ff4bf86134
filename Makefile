# QSM-AI. `make` or `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SAMPLE := data/sample
DEMO := out/demo
VOLUME_VIEW := src/qsm_ai/ui/volume_view
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell grep -oE 'torch==[0-9.]+' pyproject.toml | head -n 1)
# One more than there are cores: many tests wait for servers.
JOBS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))

# Packages that start a service when they are installed: nobody's own machine gets them unasked.
DAEMONS := nginx=nginx-light prometheus prometheus-alertmanager prometheus-blackbox-exporter redis-server

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMPS)/runtime ## Set up .venv from the hashed locks: afterwards .venv/bin/qsm-ai exists
	@echo "Ready: $(BIN)/qsm-ai"

.PHONY: up
up: install triton $(SAMPLE)/.stamp ## Start Triton, backend and frontend; Ctrl-C stops all three
	@$(MAKE) --no-print-directory niivue || echo "Without NiiVue the page shows slices alone." >&2
	@exec $(BIN)/qsm-ai serve

.PHONY: triton
triton: $(STAMPS)/runtime ## Set up Triton's own environment in .triton (or QSM_TRITON_ENV)
	@$(BIN)/python -m qsm_ai.inference.environment

.PHONY: niivue
niivue: $(VOLUME_VIEW)/niivue.js ## Fetch NiiVue, which draws whole volumes in the page

.PHONY: demo
demo: install $(SAMPLE)/.stamp ## Simulate the sample scan, reconstruct it, say where the map and its picture are
	@$(BIN)/qsm-ai reconstruct $(SAMPLE)/sub-sample/anat/*_part-phase_MEGRE.nii.gz \
	  --magnitude $(SAMPLE)/sub-sample/anat/*_part-mag_MEGRE.nii.gz --output $(DEMO)

##@ Check

.PHONY: test
test: $(STAMPS)/test triton niivue system-packages ## Run the tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(STAMPS)/test triton niivue system-packages ## Run the tests, the slow ones too
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

.PHONY: lint
lint: $(STAMPS)/test ## Check style, formatting, types and the arrows between packages
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: bench
bench: $(STAMPS)/test ## Measure accuracy and speed (docs/benchmarks.md says how to read them)
	@$(BIN)/qsm-ai benchmark accuracy
	@$(BIN)/qsm-ai benchmark speed

.PHONY: deployment-check
deployment-check: $(STAMPS)/test policies moto ## Check the deployment by outsiders' rules and on an emulated AWS
	@$(BIN)/python -m pytest tests/deploy/test_policies.py tests/deploy/test_moto.py tests/deploy/test_terraform.py \
	  tests/deploy/test_kubernetes.py $(ARGS)

.PHONY: policies
policies: .venv-policies/.stamp ## Set up checkov and zizmor in an environment of their own

.PHONY: moto
moto: .venv-moto/.stamp ## Set up moto, the emulated AWS, in an environment of its own

.PHONY: images-check
images-check: install ## Build all images without a registry and let their containers reconstruct the sample (root)
	@deploy/images-check

##@ Develop

.PHONY: format
format: $(STAMPS)/test ## Format and mend what can be mended by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: docs
docs: $(STAMPS)/test ## Write the pages that are generated from code
	@$(BIN)/python docs/generate.py
	@$(BIN)/python deploy/monitoring/slo_rules.py
	@$(BIN)/python deploy/monitoring/kubernetes_rules.py

.PHONY: dashboards
dashboards: $(STAMPS)/test ## Write Grafana's dashboards from their code
	@$(BIN)/python deploy/monitoring/dashboards
	@$(BIN)/python deploy/monitoring/kubernetes_rules.py

.PHONY: site
site: .venv-docs/.stamp ## Write the pages of docs/ as a site into out/site
	@.venv-docs/bin/mkdocs build --quiet --strict

.PHONY: lock
lock: .venv-lock/.stamp ## Lock the dependencies again (make lock ARGS=--upgrade takes the newest)
	@UV=$(CURDIR)/.venv-lock/bin/uv .venv-lock/bin/python requirements/lock.py $(ARGS)

.PHONY: system-packages
system-packages: ## Install the Debian packages that some tests drive, where that can be done
	@.ci/system-packages chromium $(if $(CI),$(DAEMONS))

.PHONY: clean
clean: ## Remove environments, caches and everything made
	rm -rf $(VENV) .venv-* .triton .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  $(SAMPLE) out dist $(VOLUME_VIEW)/niivue.js
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each step is done again only when what it was made from has changed.

$(STAMPS)/venv:
	@python=$$(.ci/find-python); echo "Making $(VENV) with $$python"; $$python -m venv $(VENV) || \
	  { echo "Python's venv module is needed (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: requirements/build.txt requirements/runtime.txt pyproject.toml | $(STAMPS)/venv
	@echo "Installing the locked dependencies into $(VENV); the first time takes a minute or two"
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/test: requirements/test.txt $(STAMPS)/runtime
	@echo "Installing what the tests need, $(TORCH) among it"
	@$(PIP) install --require-hashes -r requirements/test.txt
	@$(PIP) install '$(TORCH)'
	@touch $@

$(SAMPLE)/.stamp: src/qsm_ai/sample.py | $(STAMPS)/runtime
	@echo "Simulating the sample scan in $(SAMPLE)"
	@rm -rf $(SAMPLE)
	@$(BIN)/qsm-ai sample $(SAMPLE)
	@touch $@

$(VOLUME_VIEW)/niivue.js: $(VOLUME_VIEW)/package-lock.json .venv-node/.stamp
	@echo "Fetching NiiVue"
	@PATH=$(CURDIR)/.venv-node/bin:$$PATH $(VOLUME_VIEW)/fetch

.venv-policies/.stamp .venv-moto/.stamp .venv-docs/.stamp .venv-node/.stamp: .venv-%/.stamp: requirements/%.txt
	@$$(.ci/find-python) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

.venv-lock/.stamp:
	@$$(.ci/find-python) -m venv .venv-lock
	@.venv-lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	@touch $@
