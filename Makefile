# make demo         install everything into .venv and train GDW on the embedded data set
# make test         what tests need beside it in the same environment; linters, types and all tests
# make test-floor   an environment with the oldest libraries that are supported; the tests that depend on them

PYTHON ?= python3
VENV ?= .venv
FLOOR ?= .venv-floor
BIN := $(VENV)/bin
PACKAGES := $(wildcard packages/*)
# as many processes as the smallest machine has cores, each on one of them
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: demo test test-floor lint format clean

demo: $(VENV)/installed
	$(BIN)/reweight train --method gdw --data digits --noise uniform:0.4

test: lint
	@for package in $(PACKAGES); do \
		echo "== $$package alone"; \
		REWEIGHT_PLUGINS=reweight-$$(basename $$package) $(PYTEST) $$package || exit 1; \
	done
	@echo "== the packages together"
	$(PYTEST) tests

test-floor: BIN := $(FLOOR)/bin
test-floor: $(FLOOR)/installed
	$(PYTEST) packages/core packages/losses packages/method-* tests/test_cli.py tests/test_components.py tests/test_core_alone.py \
		tests/test_gpu_script.py tests/test_recorded_training.py tests/test_resume.py tests/test_reweighter.py \
		tests/test_startup.py tests/test_third_party_plugin.py

lint: $(VENV)/ready-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/ready-for-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(PACKAGES:%=-e %)
	touch $@

$(VENV)/ready-for-tests: $(VENV)/installed requirements-dev.txt
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@

$(FLOOR)/installed: requirements-floor.txt $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/pip install -q -r requirements-floor.txt $(PACKAGES:%=-e %)
	touch $@

clean:
	rm -rf $(VENV) $(FLOOR)
