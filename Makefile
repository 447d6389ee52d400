# make demo   install everything into .venv and train GDW on the embedded data set
# make test   the same environment; linters, types and all tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard packages/*)

.PHONY: demo test lint format clean

demo: $(VENV)/installed
	$(BIN)/reweight train --method gdw --data digits --noise uniform:0.4

test: lint
	@for package in $(PACKAGES); do \
		echo "== $$package alone"; \
		REWEIGHT_PLUGINS=reweight-$$(basename $$package) OMP_NUM_THREADS=1 \
			$(BIN)/python -m pytest $$package || exit 1; \
	done
	@echo "== everything together"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: requirements-dev.txt $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements-dev.txt $(PACKAGES:%=-e %)
	touch $@

clean:
	rm -rf $(VENV)
