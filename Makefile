PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

# Exercise A's arms, a few epochs each, on the 5,000 images that come with the installation: about a minute.
demo: .venv/installed
	$(BIN)/python -m reg_sweep.train -m experiment=none_bn,l1_bn,l2_bn,l1_l2_bn,gbn,l1_l2_gbn seed=1,2,3 \
		data=mnist_5k epochs=4 name=demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable '.[dev]'
	touch .venv/installed $@
