# make run    set-up, then the service with the bundled models; prints its address
# make sheet  set-up, then a sheet of pictures for every class of the bundled model
# make test   set-up, then all fast tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: setup run sheet test test-slow lint types check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Izograf needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[service,postgresql]" --group dev
	# an oracle for the metrics; without its dependency torchvision, which the tests stand in for
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps torch-fidelity
	touch $(STAMP)

run: setup
	$(BIN)/izograf serve

sheet: setup
	$(BIN)/izograf sheet --model scenes --output out/scenes.png

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

check: lint types test

bench: setup
	for script in sampling training attention students startup service; do $(BIN)/python benchmarks/$$script.py || exit 1; done

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
