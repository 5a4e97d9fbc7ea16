# `make` alone says what there is. Everything installs what it needs by itself; nothing outside this folder and the user's cache is changed.
# Of the same version rather that of the distribution: pyenv compiles Python without its optimizations, and then all of this takes a fifth longer.
PYTHON ?= $(shell { [ "$$(python3 -V | cut -d. -f1,2)" = "$$(/usr/bin/python3 -V | cut -d. -f1,2)" ] && /usr/bin/python3 -c 'import ensurepip'; } 2> /dev/null && \
  echo /usr/bin/python3 || echo python3)
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/python -m localkube.packages
export PYTHONPATH := operator:hack:tests
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup binaries control-plane lint types contracts texts docs check quick quick-tests charts wheels unit simulation coverage mutants charts-test tooling-test browser integration \
  collected test plugin release-files release-check demo demo-down dashboard-picture bench chaos figures reference kind kind-down e2e lock clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

$(VENV)/.ready: hack/lock/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' hack/lock/dev.txt > $(VENV)/uv.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $(VENV)/uv.txt
	@$(INSTALL) --require-hashes -r hack/lock/dev.txt
	@touch $@

setup: $(VENV)/.ready ## Install the tools of this project into .venv, by hash

binaries: setup ## Find, fetch or build the control plane's programs, helm, kubeconform, actionlint and kstatus (once; about 7 minutes when built)
	@$(RUN)/python hack/programs

control-plane: setup ## Find, fetch or build the control plane's programs alone (once; about 4 minutes when built)
	@$(RUN)/python hack/programs --control-plane

lint: setup ## Style (ruff)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: setup ## Types (mypy, strict)
	$(RUN)/mypy

contracts: setup ## Layers: what may import what
	$(RUN)/lint-imports

texts: setup ## Spelling, Markdown, shell, Dockerfile, declared dependencies, workflows
	$(RUN)/codespell $$(git ls-files)
	$(RUN)/pymarkdown scan $$(git ls-files '*.md')
	$(RUN)/shellcheck $$(git ls-files | xargs grep -lE '^#!.*\b(ba)?sh$$')
	$(RUN)/hadolint operator/Dockerfile
	$(RUN)/deptry operator
	$(RUN)/zizmor --offline --no-progress --persona=pedantic --quiet .github

docs: setup ## The documents as a site in build/docs; warnings are errors
	@$(RUN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet -c docs -d build/doctrees . build/docs
	@echo "wrote build/docs/index.html"

# Compiles what the tests import. Workers, which begin at the same time, would each compile all of it.
collected: setup
	@mkdir -p build && $(RUN)/pytest --collect-only -qq $(ALL_TESTS) > build/collected.txt 2>&1 || { cat build/collected.txt; exit 1; }

check: lint types contracts texts docs ## Everything that runs no test

charts: binaries ## As reference, then lint the Helm charts and render them into build/charts
	@$(RUN)/python hack/charts

reference: setup ## Write what is derived in docs, in the CRD and in the charts
	@$(RUN)/python hack/charts --write-only

wheels: setup ## Fetch the images' dependencies into build/wheels, for builds where containers reach no registry
	@$(RUN)/python hack/wheels

# Of what is compiled only msgspec cannot do without. Its libraries are named by the version of Python, so one folder holds all of them.
plugin: setup ## Make build/kubectl-whatsapp.pyz, the plugin as one file for machines without pip
	@rm -rf build/plugin build/plugin-* && mkdir -p build
	@$(INSTALL) --target build/plugin --require-hashes -r hack/lock/kubectl.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-compile --target build/plugin --upgrade --no-deps --no-build-isolation .
	@sed -n '/^msgspec==/,/[^\\]$$/p' hack/lock/kubectl.txt > build/plugin-compiled.txt
	@for python in 3.11 3.12 3.13 3.14; do \
	  $(INSTALL) --target build/plugin-$$python --python-version $$python --only-binary :all: --no-deps --require-hashes -r build/plugin-compiled.txt \
	    && cp -n build/plugin-$$python/msgspec/*.so build/plugin/msgspec/ || exit 1; \
	done; rm -rf build/plugin-*
	@$(RUN)/shiv --site-packages build/plugin --compressed --reproducible --entry-point kubectl_whatsapp.__main__:run \
	  --python '/usr/bin/env python3' --output-file build/kubectl-whatsapp.pyz
	@echo "build/kubectl-whatsapp.pyz: put it into the PATH as kubectl-whatsapp"

# Tests that share an environment go to one worker, the longest first; conftest.py says which.
PYTEST = $(RUN)/pytest --dist loadscope --no-loadscope-reorder --durations 10 -n
# One for each of two processors, and two for the tests on real control planes, which mostly wait. With a third they fail by overload.
WORKERS ?= 4
TOOLING := hack/localkube/tests
ALL_TESTS := $(addprefix tests/,unit simulation conformance charts images release browser integration) $(TOOLING)

quick: setup ## Style, types, layers, unit tests but the slow ones, 28 seeds of the simulation: for the inner loop
	@$(MAKE) --no-print-directory --jobs 4 lint types contracts quick-tests

# Most of these tests wait for something, so there are more workers than processors.
quick-tests: setup
	SIMULATION_SEEDS=7 $(PYTEST) 6 -m "not slow and not last" tests/unit tests/simulation/test_random.py

unit: setup ## Unit tests alone
	$(PYTEST) auto tests/unit

simulation: setup ## Simulation tests alone
	$(PYTEST) auto tests/simulation

coverage: setup ## Branches of the core that its unit tests take, then of the shell by unit and simulation tests, module by module
	$(PYTEST) auto tests/unit/core --cov=whatsapp_operator.core --cov-branch --cov-report=term-missing
	SIMULATION_SEEDS=7 $(PYTEST) auto tests/unit tests/simulation --ignore tests/unit/core --ignore tests/unit/sim --ignore tests/unit/kubectl \
	  --cov=whatsapp_operator.shell --cov-branch --cov-report=term-missing

mutants: setup ## Change the core in one place at a time: a unit test must fail (MODULE=set_shards SAMPLE=50 SEED=0)
	@nice $(RUN)/python -m mutation $(MODULE) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

charts-test: binaries ## Tests of the charts and of the Dockerfile alone, without a cluster
	$(PYTEST) auto tests/charts tests/images

tooling-test: setup ## Tests of what is in hack/ alone
	$(PYTEST) auto $(TOOLING)

browser: setup ## Tests of the live page in a real browser alone (chromium)
	$(PYTEST) 1 tests/browser

integration: setup binaries ## Integration tests alone, on a real API server
	$(PYTEST) 2 tests/integration tests/conformance

test: binaries ## All checks, then all tests but those on kind (WORKERS=...)
	@$(MAKE) --no-print-directory --jobs 2 check collected
	$(PYTEST) $(WORKERS) $(ALL_TESTS)

release-files: setup binaries ## Make packages, charts, SBOMs and notes into build/release (REGISTRY=..., UNRELEASED=1: notes without a version)
	@rm -rf build/release
	@$(RUN)/python -m localkube.release files build/release $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(UNRELEASED),--unreleased)

release-check: setup binaries ## What can be checked of a release here: SBOMs, builds that repeat, charts, notes, workflows
	$(PYTEST) auto tests/release tests/images

demo: control-plane ## A running cluster that fails over and reshards before your eyes (KEEP=1 leaves it running; OBSERVE=1: a Prometheus evaluates the alerts)
	@$(RUN)/python hack/demo $(if $(KEEP),--keep) $(if $(OBSERVE),--observe)

demo-down: setup ## Remove what `make demo KEEP=1` left
	@$(RUN)/python hack/demo --down

dashboard-picture: control-plane ## Take docs/dashboard.png again, from a real run (chromium)
	@$(RUN)/python hack/dashboard-picture

bench: control-plane ## Measure failovers and resizes (CASE=..., N=..., RESIZES=...; SCALE=1000: what so many clusters cost; PLUGIN=1: kubectl whatsapp)
	@$(RUN)/python hack/bench $(if $(PLUGIN),--plugin $(if $(N),--n $(N)),$(if $(SCALE),--scale $(SCALE) $(if $(N),--failovers $(N)),$(if $(CASE),--case $(CASE)) $(if $(N),--n $(N)) $(if $(RESIZES),--resizes $(RESIZES))))

chaos: control-plane ## Break everything, ten times, under messages; up to 40 minutes (ONLY=hang,node-lost N=... SOAK=seconds)
	@$(RUN)/python hack/chaos $(if $(ONLY),--only $(ONLY)) $(if $(N),--n $(N)) $(if $(SOAK),--soak $(SOAK))

figures: setup ## Write docs/figures into README and docs; TAKE="bench chaos" takes them over from build first
	@$(RUN)/python hack/figures $(TAKE)

kind: setup ## A kind cluster with both images and the operator, also without a registry (NAME=..., INSTALL_DOCKER=1; docs/kind.md)
	@$(RUN)/python hack/kind-offline up --operator $(if $(NAME),--name $(NAME)) $(if $(INSTALL_DOCKER),--install-docker)

kind-down: setup ## Remove what `make kind` made (NAME=..., DOCKER=1: the dockerd too that INSTALL_DOCKER=1 started)
	@$(RUN)/python hack/kind-offline down $(if $(NAME),--name $(NAME)) $(if $(DOCKER),--docker)

e2e: binaries ## The user's path on kind, and everything that breaks there; 30 minutes (ONLY=drain,... N= NODE_N= RELEASE_N= KEEP=1 INSTALL_DOCKER=1)
	@$(RUN)/python hack/e2e $(if $(ONLY),--only $(ONLY)) $(if $(N),--n $(N)) $(if $(NODE_N),--node-n $(NODE_N)) \
	  $(if $(RELEASE_N),--release-n $(RELEASE_N)) $(if $(KEEP),--keep) $(if $(INSTALL_DOCKER),--install-docker)

# For the oldest Python of pyproject.toml, in its first version; the same files are for newer ones, as tests/release/test_locks.py tries.
COMPILE = UV_SYSTEM_CERTS=true $(RUN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate

lock: setup ## Write hack/lock from pyproject.toml
	$(COMPILE) pyproject.toml --extra dev -o hack/lock/dev.txt
	$(COMPILE) pyproject.toml --extra tracing -o hack/lock/run.txt
	$(RUN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["simulator"], sep="\n")' \
	  | $(COMPILE) - -o hack/lock/simulator.txt
	$(RUN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  own = (one for one in p["dependencies"] if not one.startswith(("kopf", "lightkube", "aiohttp", "prometheus"))); \
	  print(*p["optional-dependencies"]["kubectl"], *own, sep="\n")' \
	  | $(COMPILE) - -o hack/lock/kubectl.txt

clean: ## Remove what the build made here (the programs in the user's cache stay)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
