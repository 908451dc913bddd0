# Everything a person types. `make` alone prints the targets below.

VENV     := .venv
PIPELINE := $(VENV)/bin/pipeline
PYTHON   ?= python3
READY    := $(VENV)/.installed
JOBS      = $(basename $(notdir $(wildcard jobs/*.yaml)))
OVERRIDES = $(foreach pair,$(SET),--set '$(pair)')

.DEFAULT_GOAL := help
.PHONY: help demo test lint submit worker up status show logs cancel retry doctor bench schema lock clean

help: ## Print this
	@echo "usage: make TARGET [JOB=name] [SET=\"train.epochs=2 ...\"]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'
	@echo
	@echo "jobs: $(JOBS)"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, and this is " + sys.version.split()[0] + "; name another with PYTHON=...") if sys.version_info < (3, 11) else 0'
	@echo "installing the pinned dependencies into $(VENV) (some 6 GB, once)"
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: $(READY) ## Train a first model, on data that is bundled; no GPU, no Docker
	@id=$$($(PIPELINE) submit --quiet --priority 1000 jobs/digits.yaml) || exit; \
	$(PIPELINE) worker --drain; code=$$?; \
	test $$code -ne 0 || $(PIPELINE) logs --follow $$id >/dev/null; \
	echo; $(PIPELINE) show $$id; exit $$code

test: $(READY) ## Linter, types, and all tests that this machine can run
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check --quiet . && $(VENV)/bin/mypy
	@$(VENV)/bin/pytest -n auto

lint: $(READY) ## Linter and types only
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check --quiet . && $(VENV)/bin/mypy

submit: $(READY) ## Queue a job: make submit JOB=vgg11 [SET="train.epochs=2"]
	@test -n "$(JOB)" || { echo "which job? for example: make submit JOB=digits" >&2; echo "jobs: $(JOBS)" >&2; exit 2; }
	@test -f "jobs/$(JOB).yaml" || { echo "there is no job '$(JOB)'" >&2; echo "jobs: $(JOBS)" >&2; exit 2; }
	@$(PIPELINE) submit "jobs/$(JOB).yaml" $(OVERRIDES)

worker: $(READY) ## Work through the queue; Ctrl-C saves and requeues
	@$(PIPELINE) worker

up: $(READY) ## Worker and TensorBoard together; Ctrl-C stops both: make up [PORT=6006]
	@$(PIPELINE) up --port $(or $(PORT),6006)

status: $(READY) ## List the jobs
	@$(PIPELINE) status

show: $(READY) ## One job in detail: make show [JOB=id]
	@$(PIPELINE) show "$(or $(JOB),latest)"

logs: $(READY) ## Follow a job's log: make logs [JOB=id]
	@$(PIPELINE) logs --follow "$(or $(JOB),latest)"

cancel: $(READY) ## Cancel a job: make cancel JOB=id
	@test -n "$(JOB)" || { echo "which job? make status lists them; then: make cancel JOB=id" >&2; exit 2; }
	@$(PIPELINE) cancel "$(JOB)"

retry: $(READY) ## Queue a failed or cancelled job again: make retry JOB=id
	@test -n "$(JOB)" || { echo "which job? make status lists them; then: make retry JOB=id" >&2; exit 2; }
	@$(PIPELINE) retry "$(JOB)"

doctor: $(READY) ## Check the machine and the installation
	@$(PIPELINE) doctor

bench: $(READY) ## Measure throughput and what logging costs: make bench BENCH_DATA=folder-with-cifar10-images
	@$(VENV)/bin/python benchmarks/throughput.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)"); throughput=$$?; echo; \
	$(VENV)/bin/python benchmarks/logging_cost.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)") && exit $$throughput

schema: $(READY) ## Write jobs/schema.json and docs/job-files.md anew, after a change of the catalog
	@$(PIPELINE) schema > jobs/schema.json
	@$(PIPELINE) schema --markdown > docs/job-files.md

lock: ## Pin the newest dependencies (needs uv)
	uv pip compile pyproject.toml --extra dev --extra export --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --constraint constraints.txt --output-file requirements.lock

clean: ## Remove the environment and caches, not the home
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
