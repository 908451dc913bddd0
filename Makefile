# Everything a person types. `make` alone prints the targets below.

ifneq ($(strip $(MAKEFILE_LIST)),Makefile)
# By its path from another folder, as in make -f ~/pipeline/Makefile status: handed over to this one.
FOLDERS := PIPELINE_HOME PIPELINE_RUNS PIPELINE_DATASETS PIPELINE_DATA PIPELINE_MODULES BENCH_DATA# as they are meant there
whole    = $(if $(filter /%,$(firstword $($(1)))),,$(CURDIR)/)$($(1))
.PHONY: $(MAKECMDGOALS) checkout
$(or $(MAKECMDGOALS),help): checkout ; @:
checkout:
	@$(MAKE) --no-print-directory -C "$$(dirname "$(strip $(MAKEFILE_LIST))")" \
	  $(foreach name,$(FOLDERS),$(if $($(name)),$(name)="$(call whole,$(name))")) $(MAKECMDGOALS)
else

MAKEOVERRIDES :=# in no environment but as variables of their own: there may be a password among them
VENV     := .venv
RAY_VERSION := ==2.60.0# that the tests of clusters are made with
PYTHON   ?= python3
READY    := $(VENV)/.installed
SOURCES  := . modules/own_operation.py# what else lies in modules/ is the user's own
SCRIPTS  := .ci/run $(wildcard docker/*.sh)
KNOWN     = $(basename $(notdir $(wildcard jobs/*.yaml)))
override SET := $(value SET)# as it was typed, with its dollar signs
export SET

, := ,

# These act on the containers where an engine answers and the images are built, else on the embedded home.
VERBS   := submit new worker up down status show logs cancel best retry rm pause resume compare doctor shell prune
setting  = $(or $($(1)),$(shell sed -n 's/^$(1)=//p' .env 2>/dev/null | tail -n 1))# as Compose finds it
IMAGES  := $(addsuffix :$(or $(call setting,PIPELINE_TAG),latest),pipeline-worker pipeline-tensorboard)
WAIT    := $(if $(shell command -v timeout),timeout 10)# an engine far away may not answer at all
ifneq ($(filter build smoke,$(MAKECMDGOALS)),)
  override MODE := docker
else ifneq ($(filter $(VERBS),$(MAKECMDGOALS)),)
  ifeq ($(MODE),)
    MODE := $(or $(if $(PIPELINE_HOME)$(ON),local),$(shell docker compose version >/dev/null 2>&1 && \
      $(WAIT) docker image inspect $(IMAGES) >/dev/null 2>&1 && echo docker || echo local))
  endif
  ifeq ($(filter docker local,$(MODE)),)
    $(error MODE is docker or local, not '$(MODE)')
  endif
endif

ifneq ($(filter-out cpu cuda,$(TORCH)),)
  $(error TORCH is cpu or cuda, not '$(TORCH)')
endif
ifeq ($(origin PORT),command line)
  export TENSORBOARD_PORT := $(PORT)
endif
ifeq ($(MODE),docker)
  ifneq ($(filter up worker doctor shell,$(MAKECMDGOALS)),)
    GPU := $(or $(GPU),$(shell if command -v nvidia-smi >/dev/null; then $(WAIT) nvidia-smi -L | grep -q '^GPU '; \
      else $(WAIT) docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia"'; fi && echo yes || echo no))
  endif
  ifeq ($(GPU)$(call setting,COMPOSE_FILE),no)
    FILES := $(addprefix -f ,compose.yaml $(wildcard compose.override.yaml) docker/compose.cpu.yaml)
  endif
  REVISION  = $(shell git rev-parse HEAD 2>/dev/null)$(if $(shell git status --porcelain -- pipeline 2>/dev/null),-dirty)
  COMPOSE  := docker compose $(FILES)
  PIPELINE := $(COMPOSE) --progress quiet run --rm cli
  HOME_IS  := containers$(if $(filter no,$(GPU)),$(,) without a GPU) (MODE=docker)
  PREPARED := engine
else
  PIPELINE := $(VENV)/bin/pipeline
  HOME_IS  := $(or $(PIPELINE_HOME),./var)$(,) without containers (MODE=local)
  PREPARED := home $(READY)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint submit new worker up down status show logs cancel best retry rm pause resume compare doctor build \
  smoke shell prune bench schema gpu crash-test cluster lock clean home engine other-torch

help: ## Print this
	@echo "usage: make TARGET [JOB=name] [SET=\"train.epochs=2 ...\"] [MODE=docker|local]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' Makefile | awk -F'|' -v width=80 '{ line = sprintf("%-12s", $$1); \
	  num = split($$2, words, " "); for (i = 1; i <= num; i++) { \
	    if (length(line) + 1 + length(words[i]) > width) { print line; line = sprintf("%-12s", "") } line = line " " words[i] } print line }'
	@echo
	@echo "jobs: $(KNOWN)" | fold -s -w 80

home:
	@echo "home: $(HOME_IS)" >&2

engine: home
	@$(WAIT) docker info >/dev/null 2>&1 || { echo "no Docker engine answers; MODE=local does without one" >&2; exit 1; }

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, and this is " + sys.version.split()[0] + "; name another with PYTHON=...") if sys.version_info < (3, 11) else 0'
	@PYTHON="$(PYTHON)" docker/install.sh $(VENV) $(TORCH)
	@touch $@

ifneq ($(TORCH),)
$(READY): $(if $(filter $(TORCH),$(shell cat $(VENV)/.torch 2>/dev/null || echo cuda)),,other-torch)
other-torch:
	@test ! -e $(READY) || { echo "$(VENV) has another PyTorch than TORCH=$(TORCH); make clean, then this again" >&2; exit 2; }
endif

demo: $(READY) ## Train a first model, on data that is bundled; no GPU, no Docker [TORCH=cpu: PyTorch without CUDA]
	@id=$$($(VENV)/bin/pipeline submit --quiet --priority 1000 jobs/digits.yaml) || exit; \
	$(VENV)/bin/pipeline worker --drain; code=$$?; \
	test $$code -ne 0 || $(VENV)/bin/pipeline logs --follow $$id >/dev/null; \
	echo; $(VENV)/bin/pipeline show $$id; exit $$code

test: lint ## Linters, types, and all tests that this machine can run
	@$(VENV)/bin/pytest -n auto -m 'not containers and not clusters'
	@$(VENV)/bin/pytest -n 3 --dist loadgroup -m clusters --no-header
	@$(VENV)/bin/pytest -m containers --no-header

lint: private PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
lint: $(READY) ## Linters and types only: of Python, shell scripts, Dockerfiles, job files and their schema, Compose files
	@ruff check $(SOURCES) && ruff format --check --quiet $(SOURCES) && mypy
	@shellcheck $(SCRIPTS) && hadolint docker/*.Dockerfile
	@check-jsonschema --check-metaschema jobs/schema.json
	@check-jsonschema --schemafile jobs/schema.json \
	  $(wildcard $(or $(shell git ls-files 'jobs/*.yaml' 2>/dev/null),jobs/*.yaml))
	@check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	@sed 's/!reset //' docker/compose.cpu.yaml | \
	  check-jsonschema --builtin-schema vendor.compose-spec --default-filetype yaml -

submit: $(PREPARED) ## Queue a job: make submit JOB=vgg11 [SET="train.epochs=2 description='a b'"]; of several values, 2,5, a sweep
	@test -n "$(JOB)" || { echo "which job? for example: make submit JOB=digits" >&2; echo "jobs: $(KNOWN)" >&2; exit 2; }
	@test -f "jobs/$(JOB).yaml" || { echo "there is no job '$(JOB)'" >&2; echo "jobs: $(KNOWN)" >&2; exit 2; }
	@$(PIPELINE) submit "jobs/$(JOB).yaml" $(if $(SET),--sets="$$SET")

new: $(PREPARED) ## Begin a model of your own, and a job for it: make new MODEL=wide_net
	@test -n "$(MODEL)" || { echo "which name? for example: make new MODEL=wide_net" >&2; exit 2; }
ifeq ($(MODE),docker)
	@$(COMPOSE) --progress quiet run --rm --user "$$(id -u):$$(id -g)" --volume "$(CURDIR)/jobs:/srv/jobs" \
	  --volume "$(or $(call setting,PIPELINE_MODULES),$(CURDIR)/modules):/srv/modules" cli new "$(MODEL)"
else
	@$(PIPELINE) new "$(MODEL)"
endif

worker: $(PREPARED) ## Work through the queue in the foreground; Ctrl-C saves and requeues: make worker [ON=slurm or ray] [SLOTS=8]
ifeq ($(MODE),docker)
	@$(COMPOSE) up worker
else
	@$(PIPELINE) worker $(if $(ON),--on $(ON)) $(if $(ADDRESS),--address $(ADDRESS)) $(if $(SLOTS),--slots $(SLOTS))
endif

# Asked of the engine, which may be on another machine, and before Compose changes or starts anything.
PUBLISHED    = $(or $(call setting,TENSORBOARD_HOST),127.0.0.1):$(or $(call setting,TENSORBOARD_PORT),6006)
PORT_IS_FREE = test "$$($(COMPOSE) port tensorboard 6006 2>/dev/null)" = "$(PUBLISHED)" || \
  said=$$(docker run --rm --publish "$(PUBLISHED):6006" --entrypoint true $(lastword $(IMAGES)) 2>&1) || case "$$said" in \
  *"address already in use"* | *"port is already allocated"* | *"orts are not available"*) port="$(PUBLISHED)"; port=$${port\#\#*:}; \
    echo "port $$port is in use; choose another: make up PORT=$$((port + 1))" >&2; exit 1 ;; esac

up: $(PREPARED) ## Worker and TensorBoard together: make up [PORT=6006] [WORKERS=2, in containers] [ON=slurm or ray]
ifeq ($(MODE),docker)
	@mkdir -p "$(or $(call setting,PIPELINE_DATA),var/datasets)"
	@docker image inspect $(IMAGES) >/dev/null 2>&1 || $(MAKE) --no-print-directory build
	@built=$$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' $(firstword $(IMAGES))); \
	  test -z "$$built" -o -z "$(REVISION)" -o "$$built" = "$(REVISION)" || \
	  echo "the images are not of this commit and its changes: make build brings them up to date" >&2
	@$(PORT_IS_FREE)
	@PIPELINE_IMAGE_DIGEST=$$(docker image inspect --format '{{.Id}}' $(firstword $(IMAGES))) \
	  $(COMPOSE) up --detach --wait $(if $(WORKERS),--scale worker=$(WORKERS))
	@echo "TensorBoard: http://$$($(COMPOSE) port tensorboard 6006) (its page reloads by itself once you switch that on)"
else
	@$(PIPELINE) up --port $(or $(TENSORBOARD_PORT),6006) $(if $(ON),--on $(ON)) $(if $(ADDRESS),--address $(ADDRESS)) $(if $(SLOTS),--slots $(SLOTS))
endif

down: $(PREPARED) ## Stop worker and TensorBoard; running jobs are saved and go on with the next `make up`
ifeq ($(MODE),docker)
	@$(COMPOSE) down
else
	@$(PIPELINE) down
endif

status: $(PREPARED) ## List the jobs: make status [WATCH=yes]
	@$(PIPELINE) status $(if $(filter yes,$(WATCH)),--watch)

show: $(PREPARED) ## One job in detail: make show [JOB=id]
ifeq ($(MODE),docker)
	@at=$$($(COMPOSE) port tensorboard 6006 2>/dev/null | sed 's/^0\.0\.0\.0:/localhost:/'); \
	$(COMPOSE) --progress quiet run --rm -e PIPELINE_TENSORBOARD_AT="$${at:+http://$$at}" cli show "$(or $(JOB),latest)"
else
	@$(PIPELINE) show "$(or $(JOB),latest)"
endif

logs: $(PREPARED) ## Follow a job's log: make logs [JOB=id]
	@$(PIPELINE) logs --follow "$(or $(JOB),latest)"

cancel: $(PREPARED) ## Cancel a job: make cancel JOB=id
	@test -n "$(JOB)" || { echo "which job? make status lists them; then: make cancel JOB=id" >&2; exit 2; }
	@$(PIPELINE) cancel "$(JOB)"

best: $(PREPARED) ## Print the job file of a sweep's best trial: make --silent best JOB=id > jobs/best.yaml
	@test -n "$(JOB)" || { echo "which sweep? make status lists them; then: make --silent best JOB=id" >&2; exit 2; }
	@$(PIPELINE) best "$(JOB)"

retry: $(PREPARED) ## Queue a failed or cancelled job again: make retry JOB=id
	@test -n "$(JOB)" || { echo "which job? make status lists them; then: make retry JOB=id" >&2; exit 2; }
	@$(PIPELINE) retry "$(JOB)"

rm: $(PREPARED) ## Remove jobs that have ended, with their runs: make rm JOB=id [or several: JOB="id id"]
	@test -n "$(JOB)" || { echo "which job? make status lists them; then: make rm JOB=id" >&2; exit 2; }
	@$(PIPELINE) rm $(foreach id,$(JOB),"$(id)")

pause: $(PREPARED) ## Start no more jobs; those that run go on
	@$(PIPELINE) pause

resume: $(PREPARED) ## Start jobs again, after make pause
	@$(PIPELINE) resume

compare: $(PREPARED) ## What differs between runs, best first: make compare JOBS="vgg11 cnn_bn" or LAST=5
	@test -n "$(JOBS)$(LAST)" || { echo "which runs? make compare JOBS=\"vgg11 cnn_bn\", or LAST=5" >&2; exit 2; }
	@$(PIPELINE) compare $(foreach id,$(JOBS),"$(id)") $(if $(LAST),--last "$(LAST)")

doctor: $(PREPARED) ## Check the machine and the installation: make doctor [ON=slurm or ray]
ifeq ($(MODE),docker)
	@$(COMPOSE) --progress quiet run --rm worker doctor
else
	@$(PIPELINE) doctor $(if $(ON),--on $(ON)) $(if $(ADDRESS),--address $(ADDRESS))
endif

shell: $(PREPARED) ## A shell where the jobs run
ifeq ($(MODE),docker)
	@$(COMPOSE) --progress quiet run --rm --entrypoint bash worker
else
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $${SHELL:-bash}
endif

build: engine ## Build the two images
	@REVISION=$(REVISION) docker compose build worker tensorboard

smoke: engine ## Build, up, a first job, TensorBoard, down: in containers of their own, on the CPU
	@docker/smoke.sh

OLD_RUNS = $(if $(KEEP),--keep "$(KEEP)") $(if $(OLDER),--older "$(OLDER)") $(if $(filter yes,$(FAILED)),--failed)
prune: $(PREPARED) ## Free disk: old images; with KEEP=5, OLDER=30d or FAILED=yes old runs [YES=yes]; with ALL=yes volumes too, so every run
ifneq ($(strip $(OLD_RUNS)),)
	@$(PIPELINE) prune $(OLD_RUNS) $(if $(filter yes,$(YES)),--yes)
else ifeq ($(MODE),docker)
	@test "$(ALL)" != yes || $(COMPOSE) down --volumes --remove-orphans
	@for image in worker tensorboard; do docker image prune --force --filter label=org.opencontainers.image.title=pipeline-$$image; done
	@docker builder prune --force
else
	@echo "what may go? make prune KEEP=5, OLDER=30d or FAILED=yes lists runs in $(or $(PIPELINE_HOME),./var); with YES=yes they go" >&2
endif

bench: $(READY) ## Measure the commands, 100,000 jobs, throughput, a quantized step and what logging costs: make bench BENCH_DATA=folder-with-cifar10-images
	@$(VENV)/bin/python benchmarks/commands.py; commands=$$?; echo; \
	$(VENV)/bin/python benchmarks/many_jobs.py; jobs=$$?; echo; \
	$(VENV)/bin/python benchmarks/throughput.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)"); throughput=$$?; echo; \
	$(VENV)/bin/python benchmarks/quantized_step.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)"); quantized=$$?; echo; \
	$(VENV)/bin/python benchmarks/logging_cost.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)") && exit $$((commands | jobs | throughput | quantized))

gpu: $(READY) ## Measure all that is claimed of a GPU: make gpu [PART=A or B] BENCH_DATA=folder-with-cifar10-images
	@$(VENV)/bin/pytest -m gpu --no-header; tests=$$?; echo; \
	PYTHONPATH="$(CURDIR)" $(VENV)/bin/python benchmarks/gpu.py $(if $(PART),--part $(PART)) $(if $(BENCH_DATA),--data "$(BENCH_DATA)") \
	  $(if $(AIRBENCH),--airbench "$(AIRBENCH)") && exit $$tests

crash-test: $(READY) ## Attack queue, worker, trainings and inputs for half an hour: make crash-test [ATTACK="storms --seed 1"]
	@PYTHONPATH="$(CURDIR):$(CURDIR)/tests" $(VENV)/bin/python -m attack $(ATTACK)

cluster: $(READY) ## A one-machine cluster to try, until Ctrl-C: make cluster ENGINE=slurm or ray
	@test "$(ENGINE)" = slurm -o "$(ENGINE)" = ray || { echo "ENGINE is slurm or ray, not '$(ENGINE)'" >&2; exit 2; }
	@test "$(ENGINE)" = slurm -o -n "$(PIPELINE_TEST_RAY)" -o -x $(VENV)-ray/bin/ray || { echo "Ray is installed into $(VENV)-ray ..." >&2; \
	  $(PYTHON) -m venv $(VENV)-ray && $(VENV)-ray/bin/pip install --quiet "ray[default]$(RAY_VERSION)"; }
	@mkdir -p var; export PIPELINE_TEST_RAY="$${PIPELINE_TEST_RAY:-$(CURDIR)/$(VENV)-ray/bin/ray}"; \
	  flock --nonblock --close --conflict-exit-code 75 var/$(ENGINE).lock $(VENV)/bin/python tests/clusters/$(ENGINE)_cluster.py var/$(ENGINE); \
	  code=$$?; test $$code -ne 75 || echo "a $(ENGINE) of this checkout is running already" >&2; exit $$code

PLAIN := PIPELINE_MODULES=/none# a folder that is not there: modules of one's own are not the project's
schema: $(READY) ## Write jobs/schema.json and docs/job-files.md anew, after a change of the catalog
	@$(PLAIN) $(VENV)/bin/pipeline schema > jobs/schema.json
	@$(PLAIN) $(VENV)/bin/pipeline schema --markdown > docs/job-files.md

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock: ## Pin the newest dependencies (needs uv); make lock CUDA=cu126 pins the image's for that CUDA alone
ifeq ($(CUDA),)
	$(UV_COMPILE) pyproject.toml --extra dev --extra export --extra notify --constraint constraints.txt --output-file requirements.lock
	$(UV_COMPILE) pyproject.toml --extra export --extra notify --constraint requirements.lock --output-file docker/worker.lock
	$(UV_COMPILE) docker/tensorboard.in --constraint requirements.lock --output-file docker/tensorboard.lock
else
	$(UV_COMPILE) pyproject.toml --extra export --extra notify --constraint constraints.txt --torch-backend $(CUDA) --output-file docker/worker-$(CUDA).lock
endif

clean: ## Remove the environment and caches, not the home
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

endif
