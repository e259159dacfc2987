PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin/python
NEXT := .venv-next/bin/python
DOCS := .venv-docs/bin
CLUSTER := .venv-cluster/bin
# Each test process computes on one core; idle processes take over tests that wait in another one's queue.
TESTS := -m pytest --numprocesses auto --dist worksteal
test test-fast test-cluster faults lowest next: export OMP_NUM_THREADS = 1
# Always keep the bytecode that pytest compiles, or else each of its processes compiles the tests again.
test test-fast test-cluster faults lowest next: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo reproduce pictures docs light test test-fast test-cluster faults check lowest next clean

# Exercise A's arms, a few epochs each, on the 5,000 images that come with the installation: about a minute.
demo: .venv/installed
	$(BIN)/python -m reg_sweep.train -m experiment=none_bn,l1_bn,l2_bn,l1_l2_bn,gbn,l1_l2_gbn seed=1,2,3 \
		data=mnist_5k epochs=4 name=demo

# All trainings of docs/reproduction.md. They take many hours; the command says how many, and resumes when repeated.
reproduce: .venv/installed
	$(BIN)/python reproduction/reproduce.py

# The screenshots in the README and docs/judge.md: the first screens of two reports. Needs Chromium.
pictures: .venv/installed-dev
	$(BIN)/python benchmarks/pictures.py

# The documentation as a site, site/index.html, in its own environment. A broken link is an error, and so is a page that
# loads a script, a style, a font or a picture from another server.
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict --quiet
	! grep -rnoE --include='*.html' '<(script|link|img|iframe)[^>]*(src|href)="?(https?:)?//[^>]*' site
	@echo site/index.html

# The wheel of reg_sweep-light, which needs no torch: dist/reg_sweep_light-*.whl.
light: .venv/installed-dev
	cd light && ../$(BIN)/python -m hatchling build -t wheel -d ../dist

# All tests except studies on cluster engines, which `make test-cluster` runs.
test: .venv/installed-dev
	$(BIN)/python $(TESTS) -m 'not cluster'

# Quick tests while you work: no browser, no kills, no training of more than a second.
test-fast: .venv/installed-dev
	$(BIN)/python $(TESTS) -m 'not slow and not browser and not mnist'

# A real study on every installed engine, compared with the serial study: joblib, submitit, Ray; SLURM (as root) and
# PostgreSQL if their programs are installed (Debian: slurmctld slurmd slurm-client munge postgresql mariadb-server); and
# reports on databases and on an MLflow server. What is not installed is skipped, with a message.
test-cluster: .venv-cluster/installed
	$(CLUSTER)/python -m pytest -m cluster

# Many kills, failing disks, crowded studies and mutated files: docs/reliability.md. Takes hours on 2 cores.
faults: .venv/installed-dev
	REG_SWEEP_FAULTS=$${REG_SWEEP_FAULTS:-20} REG_SWEEP_KILLS=$${REG_SWEEP_KILLS:-10} \
		REG_SWEEP_FUZZ=$${REG_SWEEP_FUZZ:-20000} REG_SWEEP_TRIALS=$${REG_SWEEP_TRIALS:-2000} \
		$(BIN)/python -m pytest -rP tests/faults tests/fuzz tests/search/test_kill.py

check: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The fast tests on the oldest releases that pyproject.toml allows, in their own environment. Warnings are not errors
# here, because old libraries warn about each other.
lowest: .venv-lowest/installed-dev
	$(LOWEST) $(TESTS) -m 'not slow and not browser and not mnist' -W default

# All tests except those of the browser, on Hydra's next release. Its warnings are errors.
next: .venv-next/installed-dev
	$(NEXT) $(TESTS) -m 'not browser'

clean:
	rm -rf .venv .venv-lowest .venv-next .venv-docs .venv-cluster site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

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

# Ray's launcher needs an old cloudpickle; the other launchers work with it, too.
.venv-cluster/installed: pyproject.toml
	$(PYTHON) -m venv .venv-cluster
	$(CLUSTER)/python -m pip install --editable '.[dev]'
	$(CLUSTER)/python -m pip install hydra-ray-launcher 'ray>=2.60' 'cloudpickle<3' pymysql mlflow
	touch $@

.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	$(DOCS)/python -c 'import tomllib; [print(d) for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"]]' > .venv-docs/requirements.txt
	$(DOCS)/python -m pip install --requirement .venv-docs/requirements.txt
	touch $@
