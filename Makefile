# Everything a developer or operator types. It needs Python 3.11 to 3.13 with venv, and installs the rest into .venv.

.DEFAULT_GOAL := help
.PHONY: help up dev docs docs-serve check test test-fast test-nightly setup-browser audit fmt reference lock build bench bench-peers bench-page
# Without compiled files every start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; break; }; done)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

up: $(VENV)/.base ## run the whole site until Ctrl-C; HOST, PORT, DATA_DIR and others as in docs/reference/settings.md
	@exec $(BIN)/python manage.py up

dev: $(VENV)/.dev ## run the site with sample data and reload; its data folder is var/dev
	@DATA_DIR="$${DATA_DIR:-var/dev}" RELOAD=true exec $(BIN)/python manage.py dev

# Most tests wait for something, so more of them run at a time than there are cores.
WORKERS ?= $(if $(T)$(K),0,4)
RUN_TESTS = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder \
	$(if $(K),-k "$(K)") $(PYTEST) $(T)

check: $(VENV)/.dev ## check format, style, types, imports, links in the docs, templates and migrations
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docs_links
	$(BIN)/python -m tests.template_format
	@data=$$(mktemp -d) && trap "rm -rf $$data" EXIT && DATA_DIR=$$data $(BIN)/python manage.py makemigrations --check --dry-run

test: $(if $(T)$(K),,check) $(VENV)/.dev ## check, then run every test; T=path K=word runs a part of them
	@$(RUN_TESTS)

test-fast: $(VENV)/.dev ## run the tests that aren't marked slow
	@$(RUN_TESTS) -m "not slow"

test-nightly: check ## check, then run every test, with the long variants
	@$(RUN_TESTS) --nightly

setup-browser: ## install Chromium for the browser tests (needs root and apt)
	@sh tests/browser/install

audit: $(VENV)/.dev ## look up known vulnerabilities of everything in requirements/base.txt, dev.txt and docs.txt
	@$(BIN)/python -m tests.audit requirements/base.txt requirements/dev.txt requirements/docs.txt

BENCH = $(BIN)/python -m tests.bench $(K) $(if $(KEEP),--keep $(KEEP)) $(if $(QUICK),--quick)
bench: $(VENV)/.dev ## measure speed and size; K=streams a part, KEEP=file stores the figures, QUICK=1 checks the benchmark
	$(BENCH)

bench-peers: $(VENV)/.dev ## measure this project, MLflow and BentoML side by side
	$(BENCH) --peers $(VENV)-peers

bench-page: $(VENV)/.dev ## put the figures of KEEP=file on docs/reference/performance.md
	$(BIN)/python -m tests.bench --write $(KEEP) docs/reference/performance.md

fmt: $(VENV)/.dev ## format, and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# mkdocs would print an announcement of its successor.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs ## build the documentation into site/, and fail on a broken link or anchor
	@$(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

docs-serve: $(VENV)/.docs ## serve the documentation at 127.0.0.1:8001, with reload
	@$(BIN)/mkdocs serve --strict --dev-addr 127.0.0.1:8001

reference: $(VENV)/.dev ## generate docs/reference/settings.md from the code
	@$(BIN)/python -m dashboard.environment

build: $(VENV)/.dev ## build the wheel into dist/
	@$(BIN)/python -m hatchling build --target wheel --directory dist

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate
lock: $(VENV)/.dev ## update the pinned versions and hashes in requirements/*.txt
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/docs.in -o requirements/docs.txt
	$(COMPILE) requirements/peers.in -o requirements/peers.txt

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 was found: install one, or name it with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$$($(PYTHON) -V) does not fit: PYTHON must be 3.11, 3.12 or 3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) lacks venv: install it first (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: requirements/base.txt | $(VENV)/.made
	@echo "Installing what the site needs into $(VENV) …"
	@$(INSTALL) $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	@echo "Installing what checks and tests need into $(VENV) …"
	@$(INSTALL) $<
	@touch $@

$(VENV)/.docs: requirements/docs.txt | $(VENV)/.made
	@echo "Installing what the documentation needs into $(VENV) …"
	@$(INSTALL) $<
	@touch $@
