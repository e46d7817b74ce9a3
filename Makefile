# Two commands are all a new user needs: `make demo` and `make test`. Both set up .venv once and then only run.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-slow check format install clean

demo: $(STAMP)  ## the whole loop on the demo world, on this machine, offline
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/loop.sh

test: $(STAMP)  ## the everyday tests, on a real Label Studio server and a real browser where there is one
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: $(STAMP)  ## the others: the whole loop of the demo, every theme in the browser, compiled models
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

check: $(STAMP)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[server,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache
