# Two commands for a fresh machine: `make perf` gates this machine's environment, `make test` tests the plugin.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: perf test lint release-check clean

perf: $(VENV)/.perf
	$(BIN)/pytest perf_tests --gpu cpu $(PYTEST_ARGS)

test: $(VENV)/.test
	$(BIN)/pytest tests -n auto --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Everything that publishing does, up to the upload; the archives are in dist/
release-check: $(VENV)/.test $(VENV)-release/.installed
	$(VENV)-release/bin/python tools/release_check.py --packages $(BIN)/python

$(VENV)-release/.installed: requirements/release.txt
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --require-hashes -r requirements/release.txt
	touch $@

# torch goes first and alone, so that nothing else can choose its build
$(VENV)/.perf: requirements/perf.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' requirements/perf.txt)
	$(BIN)/python -m pip install --quiet -r requirements/perf.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.test: $(VENV)/.perf requirements/test.txt
	$(BIN)/python -m pip install --quiet -r requirements/test.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-release build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
