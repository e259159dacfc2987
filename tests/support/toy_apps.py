"""Runs the toy apps of tests/search/search_app, which are not part of the package, as studies."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import commands
import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from sqlalchemy import event
from sqlalchemy.pool import Pool

from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.settings import Settings
from reg_sweep.search.space import space

APPS = Path(__file__).parents[1] / "search" / "search_app"
STUDY = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out"]
X = "x=interval(-1, 1)"
Y = "y=interval(-1, 1)"
SEED = "hydra.sweeper.sampler.seed=1"
GRID = "hydra/sweeper/sampler=grid"
DESIGN = ["hydra.sweeper.design.margin=0.1", "hydra.sweeper.design.max_seeds=20"]
VERDICT = [*STUDY, "hydra.sweeper.until_verdict=true", "hydra.sweeper.direction=maximize", *DESIGN]


def options(**settings):
    """Overrides that set the sweeper's options."""
    return [f"hydra.sweeper.{name}={value}" for name, value in settings.items()]


def plan_of(*overrides, **settings):
    """The plan of a study with this space and these settings."""
    return StudyPlan(Settings.of(settings), space(OverridesParser.create().parse_overrides(list(overrides))))


def start(tmp_path, name, *arguments, **variables):
    """Starts a toy app as a process of its own."""
    return commands.start(tmp_path, str(APPS / f"{name}.py"), *arguments, **variables)


def run_process(tmp_path, name, *arguments, code=0, **variables):
    """Runs a toy app as a process of its own; returns its output. It must exit with `code`."""
    done = start(tmp_path, name, *arguments, **variables).end()
    out = done.stdout + done.stderr
    assert done.returncode == code, out
    return SimpleNamespace(out=out)


EXPIRED = "stopped after hydra.sweeper.trial_timeout=1s"


def run_hanging(tmp_path, hangs, *more, **variables):
    """Runs a study whose second job hangs; returns its trials."""
    study = [*STUDY, "hydra/sweeper/sampler=grid", "x=0,1,2", f"hangs={hangs}", "hydra.sweeper.trial_timeout=1s"]
    done = run_process(tmp_path, "hanging", *study, *more, **variables)
    trials = load(tmp_path / "out").trials
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE"], done.out
    return trials


def load(folder="out", name="out"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def states(study):
    return [t.state.name for t in study.trials]


@contextmanager
def counted_connections():
    """The database connections that were opened in the block and are still open."""
    opened = set()
    listeners = {"connect": lambda made, _: opened.add(made), "close": lambda made, _: opened.discard(made)}
    for what, listener in listeners.items():
        event.listen(Pool, what, listener)
    try:
        yield opened
    finally:
        for what, listener in listeners.items():
            event.remove(Pool, what, listener)
