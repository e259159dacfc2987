"""Requirements of a study, and refusals when it is opened."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf
from sqlalchemy import text
from toy_apps import GRID, STUDY, X, Y, load, options, plan_of, states

from reg_sweep.search.backends import Database
from reg_sweep.search.results import refuse_failures
from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import IDENTITY, open_storage
from reg_sweep.search.study import _check_same

# A swept key's range, a fixed one, and one that was not swept.
CHANGES = {
    "x=interval(-2, 1)": "x was -1.0 to 1.0, is -2.0 to 1.0",
    "epochs=5": "epochs was 4, is 5",
    "pause_s=interval(0, 0.001)": "pause_s was 0.0, is 0.0 to 0.001",
}


@pytest.mark.slow
def test_a_grid_is_run_whole_and_once(app):
    app("sphere", *STUDY, "hydra/sweeper/sampler=grid", "x=0,0.3", "y=range(-0.2, 0.2, 0.1)", "scale=glob(*)")
    trials = load().trials
    points = [tuple(sorted(t.params.items(), key=str)) for t in trials]
    assert len(points) == len(set(points)) == 2 * 4 * 2
    config = Path("out/3/.hydra/overrides.yaml").read_text()
    assert all(f"- {k}={v}" in config for k, v in trials[3].params.items())


@pytest.mark.slow
def test_enqueued_points_come_first_and_once(app):
    for total in (3, 4):
        app("sphere", *STUDY, X, *options(enqueue="[{x: 0.25}, {x: 0.5}]", n_trials=total))
    values = [t.params["x"] for t in load().trials]
    assert (values[:2], len(values), values.count(0.25)) == ([0.25, 0.5], 4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "qmc", "cmaes", "nsgaii"])  # tpe and random begin in other tests
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_of_the_group_runs_as_installed(app, sampler):
    app("sphere", *STUDY, X, Y, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=3")
    assert states(load()) == ["COMPLETE"] * 3


def test_a_sampler_whose_library_is_missing_is_refused_before_the_study_begins(app, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    # another test may have had Optuna load it
    monkeypatch.setattr("optuna.samplers._cmaes.cmaes", optuna._imports._LazyImport("cmaes"))
    done = app("sphere", *STUDY, X, Y, "hydra/sweeper/sampler=cmaes", code=1)
    assert "CmaEsSampler can't search this space" in done.err
    assert "cmaes" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "0").exists()


@pytest.mark.slow
def test_a_changed_study_is_refused_unless_it_is_extended(app):
    typed = {"x": X}
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    for n, (changed, difference) in enumerate(CHANGES.items(), 3):
        typed[changed.partition("=")[0]] = changed
        command = ["descent", *STUDY, *typed.values(), f"hydra.sweeper.n_trials={n}"]
        refused = app(*command, code=1)
        assert difference in refused.err.splitlines()[0]
        assert len(load().trials) == n - 1
        app(*command, "hydra.sweeper.extend=true")
        assert len(load().trials) == n
    app("descent", *STUDY, *typed.values(), "hydra.sweeper.n_trials=6")


@pytest.mark.slow
def test_keys_that_may_differ_do_not_stop_a_study_and_another_sampler_not_without_a_word(app):
    study = ["descent", *STUDY, X, "hydra.sweeper.may_differ=[pause_s]"]
    app(*study, "pause_s=0", "hydra.sweeper.n_trials=1")
    assert "resumes with" not in app(*study, "pause_s=0.001", "hydra.sweeper.n_trials=2").out
    other = app(*study, "hydra.sweeper.n_trials=3", "hydra/sweeper/sampler=random")
    assert "resumes with RandomSampler and NopPruner instead of TPESampler and NopPruner" in other.out
    assert len(load().trials) == 3


@pytest.mark.slow
def test_other_choices_and_another_direction_are_refused_whatever_is_asked(app):
    app("descent", *STUDY, "x=0,1", "hydra.sweeper.n_trials=1")
    for changed, complaint in (
        (["x=0,1,2", "hydra.sweeper.extend=true"], "neither choices nor a grid can be extended"),
        (["x=0,1,2"], "neither choices nor a grid can be extended"),  # and no remedy that would be refused again
        (["x=0,1", "hydra.sweeper.direction=maximize"], "study out has the direction minimize, not maximize"),
    ):
        assert complaint in app("descent", *STUDY, *changed, code=1).err.splitlines()[0]
    assert len(load().trials) == 1


@pytest.mark.parametrize(
    ("more", "remedy"),
    [(["hydra/sweeper/sampler=grid", "x=0,1"], "name seeds"), ([X], "add hydra.sweeper.confirm=true")],
)
def test_numbers_of_a_test_are_refused_where_nothing_is_tested(app, more, remedy):
    done = app("descent", *STUDY, *more, "hydra.sweeper.design.max_seeds=4", code=1)
    line = done.err.splitlines()[0]
    assert "hydra.sweeper.design.max_seeds=4 must be left out" in line
    assert remedy in line


@dataclass
class Loss:
    smoothing: float = 0.0


@dataclass
class Structured:
    later: int = 2
    loss: Loss = field(default_factory=Loss)


def check_again(then, now):
    """A study that began as `then` is started again as `now`, by an app whose choice of `norm` is bn."""
    study = SimpleNamespace(study_name="s", directions=[], user_attrs={IDENTITY: {"x": "0 to 1", **then}})
    config = OmegaConf.structured(Structured, flags={"struct": False})
    config.hydra = {"sweep": {"dir": "out"}, "runtime": {"choices": {"norm": "bn"}}}
    plan = SimpleNamespace(until=None, is_grid=False, space=SimpleNamespace(distributions={}))
    plan.settings = SimpleNamespace(directions=[], extend=False, study_name=None)
    plan.identity = lambda _: {"x": "0 to 1", **now}
    _check_same(study, plan, SimpleNamespace(config=config))


def test_an_option_that_came_later_and_is_unset_or_at_its_default_does_not_stop_a_study():
    check_again({}, {"later": "None", "more": "{}"})
    check_again({}, {"later": "2", "loss.smoothing": "0.0"})
    with pytest.raises(StudyError, match="later was not there, is 3"):
        check_again({}, {"later": "3"})


def test_naming_an_option_that_is_chosen_anyway_does_not_stop_a_study():
    check_again({}, {"norm": "bn"})
    check_again({"norm": "bn"}, {})
    for then, now in ({}, {"norm": "gbn"}), ({"norm": "gbn"}, {}), ({"norm": "bn"}, {"norm": "gbn"}):
        with pytest.raises(StudyError, match="norm was "):
            check_again(then, now)


@pytest.mark.slow
def test_a_directory_of_other_jobs_is_not_overwritten(app):
    app("sphere", "-m", "hydra.sweep.dir=out", "x=1,2")
    before = {p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()}
    done = app("sphere", *STUDY, X, code=1)
    assert "out/0 holds a job that is not part of study out" in done.err.splitlines()[0]
    assert all(p.read_bytes() == content for p, content in before.items())


@pytest.mark.parametrize("name", ["study.json", "optimization_results.yaml", "experiment/best.yaml", "experiment"])
def test_a_new_study_overwrites_nothing_of_its_folder(app, name):
    path = Path("out", name)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    done = app("sphere", *STUDY, X, "hydra.sweeper.n_trials=1", code=1)
    assert f"out/{name} must be new or belong to study out, got another study's: move " in done.err.splitlines()[0]
    assert path.read_text() == "mine"


def test_a_name_that_the_storage_takes_for_another_studys_is_refused_in_a_line(app, database):
    storage = open_storage(database)
    with storage.engine.begin() as connection:  # as MySQL's tables are by default
        connection.execute(text("CREATE UNIQUE INDEX caseless ON studies (study_name COLLATE NOCASE)"))
    optuna.create_study(study_name="It", storage=storage)
    done = app("sphere", *STUDY, X, f"hydra.sweeper.storage={database}", "hydra.sweeper.study_name=it", code=1)
    assert "a study whose name it can't distinguish from it (MySQL ignores case)" in done.err.splitlines()[0]
    assert "Traceback" not in done.err
    assert optuna.get_all_study_names(storage) == ["It"]


def test_parameters_of_which_the_storage_would_keep_one_are_refused(app, database, monkeypatch):
    typed = ["sphere", *STUDY, X, "+X=interval(2, 3)", *options(storage=database, n_trials=1)]
    with monkeypatch.context() as patch:
        patch.setattr(Database, "tells_case", False)
        assert "x and X must differ in more than case, which MySQL ignores" in app(*typed, code=1).err.splitlines()[0]
    assert optuna.get_all_study_names(database) == []
    app(*typed)


@pytest.mark.slow
def test_failed_trials_are_tried_again_as_new_ones_when_asked(app):
    command = ["descent", *STUDY, "x=0,0.9", GRID, "hydra.sweeper.may_differ=[fails_above]"]
    failed = app(*command, "fails_above=0.5")
    assert "1 trial failed; fix the cause, then retry with hydra.sweeper.retry_failed=true" in failed.out
    for _ in range(2):  # once each: what is finished is finished
        done = app(*command, "hydra.sweeper.retry_failed=true")
    study = load()
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL"]
    retried = study.trials[-1]
    assert study.trials[retried.user_attrs["retry_of"]].state.name == "FAIL"
    assert retried.params == {"x": 0.9}
    assert "trials failed" not in done.out


def test_a_study_of_which_trials_are_left_ends_with_an_error():
    plan = plan_of("x=interval(0, 1)", n_trials=3)
    study = optuna.create_study()
    study.tell(study.ask(), 1.0)
    with pytest.raises(StudyError, match="the study is not finished: 2 of 3 trials are left"):
        refuse_failures(plan, study.trials)


def test_a_grid_of_one_point_is_a_study_of_one_trial(app):
    app("sphere", *STUDY, "x=choice(0.5)", "hydra/sweeper/sampler=grid")
    assert states(load()) == ["COMPLETE"]
