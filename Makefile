# The commands of this repository; `make` without a target lists them.

PYTHON ?= python3
STUDY ?= params.yaml
SNAKEMAKE_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?= --quick
TORTURE_ARGS ?= --kills 200
LOCK_ARGS ?=
IMAGE ?= robustviews
FOLDER ?= .
DOCKER ?= docker
DOCKER_ARGS ?=
IMAGE_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp
QUIET := $(if $(MAKE_TERMOUT),,--quiet)# progress bars on a terminal
SNAKEMAKE := $(BIN)/snakemake

# Jobs of the workflow and subprocesses of the tests use this environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Otherwise each of many short processes compiles all its imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo reproduce report test-fast test torture bench docs check format lock image demo-in-image test-image test-cluster clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PYTHON=python3.12       interpreter that `setup` builds .venv from, 3.11 or newer'
	@echo '  STUDY=studies/x.yaml    study of `demo` and `report`, by default params.yaml'
	@echo '  SNAKEMAKE_ARGS=...      more options of Snakemake, such as --dry-run or --cores 2'
	@echo '  PYTEST_ARGS=...         more options of pytest, such as "-k attack -x"'
	@echo '  BENCH_ARGS=...          instead of --quick for `bench`, such as --device=cuda'
	@echo '  TORTURE_ARGS=...        instead of --kills 200 for `torture`, such as "--kills 20 --power" as root'
	@echo '  LOCK_ARGS=...           more options of `lock`, such as --upgrade or "--upgrade-package ruff"'
	@echo '  IMAGE_ARGS=...          more options of `docker build`, such as "--build-arg BASE_IMAGE=python:3.12-slim"'
	@echo '  DOCKER_ARGS=...         more options of `docker run`, such as "--gpus all"'
	@echo '  FOLDER=folder           where `demo-in-image` writes its results, by default where `demo` does'

setup: $(STAMP) ## create .venv with the exact versions of requirements.lock

demo: setup ## run the small study of params.yaml, or STUDY; again: only what changed
	$(SNAKEMAKE) $(addprefix --config study=,$(filter-out params.yaml,$(STUDY))) $(SNAKEMAKE_ARGS)
	@$(BIN)/robustviews summary --study $(STUDY)

reproduce: setup ## run the paper's whole study, studies/cf-amc-ssl.yaml (needs a GPU)
	$(SNAKEMAKE) --config study=studies/cf-amc-ssl.yaml $(SNAKEMAKE_ARGS)
	@$(BIN)/robustviews summary --study studies/cf-amc-ssl.yaml

report: setup ## write Snakemake's own report of a finished study to results/workflow.html
	$(SNAKEMAKE) --config study=$(STUDY) --report results/workflow.html $(SNAKEMAKE_ARGS)

test-fast: setup ## run only the quick tests of the package
	$(BIN)/pytest $(PYTEST_ARGS)

test: setup ## run all tests, including those of the workflow
	$(BIN)/pytest -m '' tests $(PYTEST_ARGS)

torture: setup ## kill the workflow and its jobs 200 times at random, and count what is lost
	$(BIN)/python -m tests.workflow.torture $(TORTURE_ARGS)

bench: setup ## time the training step and its parts against alternatives, in five minutes on two cores
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

docs: setup ## write the generated pages, and build docs/ as an offline site in site/
	$(BIN)/robustviews keys >docs/study-file.md
	$(BIN)/robustviews switches --markdown --study studies/cf-amc-ssl.yaml >docs/switches.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'Manual: $(CURDIR)/site/index.html'

check: setup ## format, lint, types, spelling, and every shipped study
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint --software-deployment-method apptainer # only this method names the image
	sh -n workflow/stage
	sh -n workflow/killed
	bash -n docker/entrypoint
	$(BIN)/codespell . .ci
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; else echo 'no hadolint for this machine'; fi
	$(BIN)/robustviews check params.yaml studies/*.yaml

format: setup ## fix formatting and lint errors that the tools can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/snakefmt workflow

lock: setup ## resolve pyproject.toml into requirements.lock again, for every platform
	$(BIN)/uv pip compile pyproject.toml --output-file requirements.lock --all-extras --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --quiet \
		--custom-compile-command 'make lock' $(LOCK_ARGS)

# The files in the image, which decide whether its commit is dirty.
IMAGED := Dockerfile docker src workflow studies params.yaml pyproject.toml requirements.lock
REVISION = $(shell git rev-parse HEAD 2>/dev/null)$(if $(shell git status --porcelain -- $(IMAGED) 2>/dev/null),-dirty)
LOCK = $(firstword $(shell sha256sum requirements.lock 2>/dev/null || shasum -a 256 requirements.lock))

image: ## build the image of the Dockerfile, 6 GB, named robustviews
	DOCKER_BUILDKIT=1 $(DOCKER) build --tag $(IMAGE) --build-arg REVISION=$(REVISION) --build-arg LOCK=$(LOCK) \
		$(IMAGE_ARGS) .

# The digest is known only after the build, so it is set from outside (Podman prints it without `sha256:`). The
# container writes only to FOLDER.
demo-in-image: image ## as demo, in the image, with no network and a read-only root
	@mkdir -p "$(FOLDER)"
	digest=$$($(DOCKER) image inspect --format '{{.Id}}' $(IMAGE)) && \
	$(DOCKER) run --rm --init --network none --read-only --tmpfs /tmp:exec \
		--user "$$(id -u):$$(id -g)" --volume "$(abspath $(FOLDER)):/study" \
		--env ROBUSTVIEWS_IMAGE="sha256:$${digest#sha256:}" \
		$(DOCKER_ARGS) $(IMAGE) demo $(SNAKEMAKE_ARGS)

test-image: setup ## on Debian 12 as root: build the image from scratch, test it, and remove it
	ROBUSTVIEWS_TEST_IMAGE=1 $(BIN)/pytest -n0 ci/image $(PYTEST_ARGS)

test-cluster: setup ## on Debian 12 as root: start Slurm with two simulated GPUs, run a study on it
	ROBUSTVIEWS_TEST_CLUSTER=1 $(BIN)/pytest -n0 ci/cluster $(PYTEST_ARGS)

clean: ## remove caches, but not data, results and .venv
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site
	find src tests ci workflow -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last and names its folder: an environment without a stamp is incomplete, and one that names
# another folder was moved. Both are rebuilt, from the download cache.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif
$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"make setup: expected Python 3.11 or newer, found: $$("$(PYTHON)" --version 2>&1);" \
		"type: make setup PYTHON=python3.12" >&2; exit 1; }
	@test "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" || { \
		"$(PYTHON)" -m venv --clear .venv && \
		awk '/^[^ #]/ { uv = /^uv==/ } uv' requirements.lock >.venv/uv.requirements && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.requirements; }
	@rm -f $(STAMP)
	@echo 'make setup: installing requirements.lock: 5 GB on Linux, downloaded the first time only'
	$(BIN)/uv pip sync $(QUIET) --python $(BIN)/python --require-hashes \
		--build-constraints requirements.lock requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" >$(STAMP)
