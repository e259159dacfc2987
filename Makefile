PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin/python
NEXT := .venv-next/bin/python
# The tests share out the cores, so each computes on one; what waits in one worker's queue an idle one takes.
TESTS := -m pytest --numprocesses auto --dist worksteal
test test-fast faults lowest next: export OMP_NUM_THREADS = 1
# What pytest compiles of the tests is kept, whatever the environment says: each of its processes would compile it anew.
test test-fast faults lowest next: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo pictures test test-fast faults check lowest next clean

# Exercise A's arms, a few epochs each, on the 5,000 images that come with the installation: about a minute.
demo: .venv/installed
	$(BIN)/python -m reg_sweep.train -m experiment=none_bn,l1_bn,l2_bn,l1_l2_bn,gbn,l1_l2_gbn seed=1,2,3 \
		data=mnist_5k epochs=4 name=demo

# The README's picture: the first screen of the demo's page. Needs Chromium.
pictures: demo .venv/installed-dev
	$(BIN)/python benchmarks/pictures.py outputs/demo

test: .venv/installed-dev
	$(BIN)/python $(TESTS)

# What answers while you work: no browser, no kills, no training of more than a second.
test-fast: .venv/installed-dev
	$(BIN)/python $(TESTS) -m 'not slow and not browser and not mnist'

# Kills, failing disks, crowded studies and mutated files, many of each; docs/reliability.md. Hours on 2 cores.
faults: .venv/installed-dev
	REG_SWEEP_FAULTS=$${REG_SWEEP_FAULTS:-20} REG_SWEEP_KILLS=$${REG_SWEEP_KILLS:-10} \
		REG_SWEEP_FUZZ=$${REG_SWEEP_FUZZ:-20000} REG_SWEEP_TRIALS=$${REG_SWEEP_TRIALS:-2000} \
		$(BIN)/python -m pytest -rP tests/faults tests/fuzz tests/search/test_kill.py

check: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The fast tests on the oldest releases that pyproject.toml allows, in an environment of their own. What old libraries
# say of each other is not ours to mend: warnings are no errors here.
lowest: .venv-lowest/installed-dev
	$(LOWEST) $(TESTS) -m 'not slow and not browser and not mnist' -W default

# The tests of commands and studies on Hydra's next release. What it says of its own past is not ours to mend either.
next: .venv-next/installed-dev
	$(NEXT) $(TESTS) -W default tests/test_train.py tests/test_hostile.py tests/search

clean:
	rm -rf .venv .venv-lowest .venv-next build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable '.[dev]'
	touch .venv/installed $@

.venv-lowest/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST) -m pip install uv
	$(LOWEST) -m uv pip install --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	touch $@

.venv-next/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv-next
	$(NEXT) -m pip install --editable '.[dev]'
	$(NEXT) -m pip install --pre 'hydra-core>=1.4.0rc1,<1.5' 'omegaconf>=2.4.0rc1'
	touch $@
