# Everything a newcomer needs: `make demo` and `make test`; `make` alone lists the rest.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
JAVASCRIPT := build/javascript/.installed
FIGURES := build/figures
PYTEST := $(RUN) -m pytest
SCRIPTS := .ci/run $(shell find configs docs tests -name '*.sh')

# How many processes run the tests that can share the machine, and for how long make fuzz runs.
WORKERS ?= auto
SECONDS ?= 300

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-vsock test-machine lint bench pictures fuzz soak javascript constraints clean

help: ## list the targets
	@awk -F ': |## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$NF }' $(MAKEFILE_LIST)

demo: need-curl $(STAMP) ## curl and Python behind an allowlist, in a namespace without a network
	@$(RUN) -m tests.demo

# Tests marked `alone` measure time or memory and come last, one at a time; both parts always run.
# Pytest's status 5, no tests, is no failure of a part: the total says how many ran.
test: $(STAMP) ## all tests that this machine can run, and a list of those it cannot
	@rm -f $(FIGURES)/test-*.json
	@$(PYTEST) -m 'not alone' -n $(WORKERS) --dist worksteal --figures $(FIGURES)/test-shared.json; \
	shared=$$?; \
	$(PYTEST) -m alone --figures $(FIGURES)/test-alone.json; \
	alone=$$?; \
	echo; \
	$(RUN) -m tests.figures $(FIGURES)/test-shared.json $(FIGURES)/test-alone.json \
	    && [[ $$shared =~ ^[05]$$ && $$alone =~ ^[05]$$ ]]

test-vsock: $(STAMP) ## the tests on a real vsock, of this kernel or of User Mode Linux
	@rm -f $(FIGURES)/vsock.json
	@$(RUN) -m tests.on_vsock.machine --limit 1500 --writable $(FIGURES) -- \
	    $(PYTEST) tests/on_vsock tests/both_ends -m vsock -p no:cacheprovider \
	    --timeout 600 --figures $(FIGURES)/vsock.json

test-machine: need-debootstrap $(STAMP) ## images of enclaves and PID 1: built and booted, as root
	@rm -f $(FIGURES)/machine.json
	@VSOCKPROXY_TEST_MACHINE=1 $(PYTEST) tests/image tests/as_init -m machine -p no:cacheprovider \
	    --timeout 900 --figures $(FIGURES)/machine.json

lint: $(STAMP) ## ruff, mypy --strict, and the shell scripts
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@for script in $(SCRIPTS); do bash -n $$script || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); \
	else echo "lint: shellcheck is missing, shell scripts got a syntax check only"; fi

bench: need-haproxy need-socat $(STAMP) ## speed of the pair beside HAProxy and socat, as ratios, and of names
	@$(RUN) -m tests.benchmarks
	@$(RUN) -m tests.benchmarks.names
	@$(RUN) -m tests.benchmarks.first_byte
	@$(RUN) -m tests.benchmarks.refusals
	@$(RUN) -m tests.benchmarks.replacement
	@$(RUN) -m tests.benchmarks.scrape
	@$(RUN) -m tests.benchmarks.kms
	@$(RUN) -m tests.benchmarks.tls

pictures: $(STAMP) ## the pictures in docs/, taken anew from a real run
	@$(RUN) -m tests.pictures

fuzz: $(STAMP) ## hostile bytes; SECONDS=300 says for how long
	@$(RUN) -m tests.fuzz.run --seconds $(SECONDS)

soak: $(STAMP) ## a long run under load that must leak nothing
	@$(RUN) -m tests.soak

javascript: need-npm $(JAVASCRIPT) ## the AWS SDK for JavaScript, which tests of KMS use

$(JAVASCRIPT): tests/javascript/package.json tests/javascript/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

constraints: ## write constraints.txt anew, with the newest versions of everything
	@rm -rf build/newest
	@$(PYTHON) -m venv build/newest
	@build/newest/bin/python -m pip install -qq --disable-pip-version-check '.[dev]'
	@{ sed '/^[^#]/,$$d' constraints.txt; \
	    build/newest/bin/python -m pip freeze --exclude vsockproxy; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/newest

clean: ## remove the virtual environment and everything that was built or cached here
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: $(PYTHON) is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $$($(PYTHON) --version) is too old, 3.11 is needed: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: the venv module of $(PYTHON) is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing vsockproxy and what its tests need into $(VENV)"
	@$(RUN) -m pip install -qq --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[dev]'
	@touch $@

need-%:
	@command -v $* >/dev/null || { echo "make: $* is missing: apt-get install $*" >&2; exit 1; }
