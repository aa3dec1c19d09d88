# make install | demo | test | format      (JAX extras: make install EXTRAS=dev,cuda)
PYTHON ?= python3
EXTRAS ?= dev
BIN := .venv/bin

.PHONY: install demo test lint format

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: install
	$(BIN)/python -m masktrack_jax.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
