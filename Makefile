# Everything runs from .venv, made from requirements.lock by uv. Where uv is not installed, pip puts it into .uv, which
# works without root, without python3-venv and beside an externally managed Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv),.uv/bin/uv)
STAMP := $(VENV)/.installed
DEMO := demo

.PHONY: demo test test-slow check chaos format bench lock clean-demo

demo: $(STAMP)  ## clean real photos and composed scenes, and write an HTML report
	$(BIN)/python jobs/make_demo.py $(DEMO)/input
	rm -rf $(DEMO)/output
	$(BIN)/occpipe clean $(DEMO)/input $(DEMO)/output --config local --set policy.cut=0.24
	$(BIN)/occpipe report $(DEMO)/output --page $(DEMO)/report.html

test: $(STAMP)  ## all tests but the slow ones
	$(BIN)/pytest -m "not slow"

test-slow: $(STAMP)  ## the slow tests
	$(BIN)/pytest -m slow

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: $(STAMP)  ## the fault table: workers, drivers, nodes, storage and disks fail, and no image may be lost
	$(BIN)/python -m tests.chaos

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## ratios, measured in one run each
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

clean-demo:
	rm -rf $(DEMO)

$(STAMP): requirements.lock pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --target .uv uv

lock: $(STAMP)  ## write requirements.lock anew from pyproject.toml
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --quiet -o requirements.lock
