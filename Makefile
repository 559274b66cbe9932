# Everything a person or a CI job does with this checkout. Needs only make and Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
LOCK := deploy/requirements.txt
DEV_LOCK := requirements-dev.txt
LOCKED := $(VENV)/.locked
ENVIRONMENT := $(VENV)/.installed
IN_VENV := $(VENV)/bin/python -m

PROTO_VENV := .cache/protoc
PROTO_TOOLS := $(PROTO_VENV)/.installed
BUF := @bufbuild/buf@1.75.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-docker test-security fuzz image check protos check-protos lock check-lock sbom simulate docs \
	chaos bench clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

demo: $(ENVIRONMENT) ## Run real Dagster jobs on two clusters of this machine, and kill a worker
	@PYTHONPATH=tests $(IN_VENV) examples.demo

# Most tests wait for processes most of the time. Files stay whole, and keep the order that they are given in.
WORKERS ?= 3
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: check ## Run the static checks and every test
	$(IN_VENV) pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-docker

IN_CONTAINERS := $(patsubst %,tests/end_to_end/test_%.py,launching restarts worker_ends refusals containers stop_everything secrets)
test-docker: $(ENVIRONMENT) ## Run the end-to-end tests with workers in containers, on engines of their own
	RUNYARD_TEST_DRIVER=docker $(IN_VENV) pytest $(SIDE_BY_SIDE) $(IN_CONTAINERS) $(PYTEST_ARGS)

test-security: $(ENVIRONMENT) ## Run what attacks a coordinator and agents, which is a part of the tests
	$(IN_VENV) pytest tests/security $(PYTEST_ARGS)

SECONDS ?= 60
SEED ?=
fuzz: $(ENVIRONMENT) ## Attack with arbitrary messages and texts, as in: make fuzz SECONDS=600
	RUNYARD_FUZZ_SECONDS=$(SECONDS) RUNYARD_FUZZ_SEED=$(SEED) $(IN_VENV) pytest $(SIDE_BY_SIDE) \
		--timeout=$$(($(SECONDS) * 3 + 300)) tests/security/test_any_*.py tests/security/test_raw_bytes.py
	@cd tests && $(abspath $(VENV))/bin/python -m security.fuzzing --seconds $(SECONDS) $(SEED:%=--seed %)

image: $(ENVIRONMENT) ## Make an image of this machine's Python and the example project, without any registry
	@PYTHONPATH=tests $(IN_VENV) examples.image

check: $(ENVIRONMENT) ## Run the static checks: ruff, mypy and bandit
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy
	$(IN_VENV) bandit --quiet --configfile pyproject.toml --recursive common coordinator agent client cli launcher

protos: $(PROTO_TOOLS) ## Generate the stubs anew from protos/runyard/v1/*.proto
	cd protos && $(abspath $(PROTO_VENV))/bin/python -m grpc_tools.protoc -I. \
		--plugin=protoc-gen-mypy=$(abspath $(PROTO_VENV))/bin/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(abspath $(PROTO_VENV))/bin/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. runyard/v1/*.proto
	cd protos && grep -L 'class .*Stub' runyard/v1/*_pb2_grpc.py* | xargs -r rm  # files that declare no service

check-protos: protos ## Fail if the committed stubs are not those of the protos, or the protos have lint
	git diff --exit-code -- protos
	@test -z "$$(git status --porcelain -- protos)" || { git status --short -- protos; exit 1; }
	@if command -v npx >/dev/null; then cd protos && npx --yes $(BUF) lint; \
		else echo 'check-protos: no npx on this machine, so buf lint is left out'; fi

EXTRAS := coordinator agent docker dagster signing gpu
SERVICES := pyproject.toml $(EXTRAS:%=--extra %)
TOOLS := --group dev --group fuzz --group sbom
ALL_LOCKED := .cache/lock/all.txt
COMPILE := $(IN_VENV) uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links
PIN := --constraint $(ALL_LOCKED) --generate-hashes --no-strip-extras  # pip wants a hash for `name[extra]` too
# All is resolved together first, so that what both files name has one version in both.
lock: $(LOCKED) ## Pin all that the services and the tools need, by version and hash; nothing else moves a version
	@mkdir -p $(dir $(ALL_LOCKED))
	$(COMPILE) $(SERVICES) $(TOOLS) --output-file $(ALL_LOCKED)
	$(COMPILE) $(SERVICES) $(PIN) --output-file $(LOCK)
	$(COMPILE) $(TOOLS) $(PIN) --output-file $(DEV_LOCK)

INSTALL_LOCKED := install --quiet --require-hashes --only-binary :all:
IN_CHECK := .cache/locked/bin
check-lock: $(ENVIRONMENT) ## Install Runyard with what the services need alone, hashes checked, and see it start
	rm -rf .cache/wheel
	$(IN_VENV) pip wheel --quiet --no-deps --no-build-isolation --wheel-dir .cache/wheel .
	$(PYTHON) -m venv --clear .cache/locked
	$(IN_CHECK)/pip $(INSTALL_LOCKED) --requirement $(LOCK)
	$(IN_CHECK)/pip install --quiet --no-deps --no-index .cache/wheel/*.whl
	$(IN_CHECK)/pip check
	@for role in '' coordinator agent; do \
		echo "$(IN_CHECK)/runyard $$role --help"; $(IN_CHECK)/runyard $$role --help >/dev/null || exit 1; done

sbom: $(ENVIRONMENT) ## Write the bill of materials of what is pinned, for CycloneDX, to dist/sbom.cdx.json
	@mkdir -p dist
	$(IN_VENV) cyclonedx_py requirements $(LOCK) --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.cdx.json

docs: $(ENVIRONMENT) ## Write the pages in docs/reference from the code
	@$(VENV)/bin/python docs/generate.py

SEEDS ?= 10000
simulate: $(ENVIRONMENT) ## Play the cores against every fault, as in: make simulate SEEDS=100000
	@cd tests && $(abspath $(VENV))/bin/python -m simulation --seeds $(SEEDS)

chaos: $(ENVIRONMENT) ## Break real processes, networks and machines, and print what became of the runs
	@PYTHONPATH=tests $(IN_VENV) chaos $(CHAOS_ARGS)

bench: $(ENVIRONMENT) ## Run one benchmark, as in: make bench NAME=time_to_failure
	@test -n "$(NAME)" || { echo 'usage: make bench NAME=...; there are:'; \
		ls benchmarks/*.py | sed 's|benchmarks/\(.*\)\.py|  \1|'; exit 2; }
	@PYTHONPATH=tests $(IN_VENV) benchmarks.$(NAME) $(BENCH_ARGS)

clean: ## Remove the environment and everything that tools left behind
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when a lock changes, so that nothing stays that is not in one.
$(LOCKED): $(LOCK) $(DEV_LOCK)
	$(PYTHON) -m venv --clear $(VENV)
	$(IN_VENV) pip $(INSTALL_LOCKED) --requirement $(LOCK) --requirement $(DEV_LOCK)
	@touch $@

$(ENVIRONMENT): $(LOCKED) pyproject.toml
	$(IN_VENV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(PROTO_TOOLS): protos/requirements.txt
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/pip install --quiet --requirement protos/requirements.txt
	@touch $@
