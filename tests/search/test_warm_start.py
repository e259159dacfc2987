"""A search that learns from another study's trials, or a table's rows, which are never its own."""

import json
import shutil
from pathlib import Path

import pytest
from toy_apps import SEED, STUDY, X, load

from reg_sweep.search.storage import LEARNED

LEARN = "hydra.sweeper.learn_from="


@pytest.fixture
def first(app):
    """A finished study of three trials, in the folder `first`."""
    done = app("sphere", *STUDY, X, SEED, "hydra.sweeper.n_trials=3")
    assert done.code == 0, done.err
    shutil.move("out", "first")
    return load("first")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["first", "first/study.db", "first/study.db#out", "known.csv"])
def test_what_is_learned_is_told_marked_and_never_counted(app, first, source):
    rows = [f"{t.params['x']},{t.value}" for t in first.trials]
    Path("known.csv").write_text("\n".join(["x,value", *rows]))
    for n in (2, 3):  # and again, when the study resumes
        done = app("sphere", *STUDY, X, f"{LEARN}'{source}'", f"hydra.sweeper.n_trials={n}")
        assert done.code == 0, done.err
    trials = load().trials
    learned = [t for t in trials if LEARNED in t.user_attrs]
    assert [(t.params, t.value) for t in learned] == [(t.params, t.value) for t in first.trials]
    facts = json.loads(Path("out/study.json").read_text())
    assert [t["number"] for t in facts["trials"]] == [3, 4, 5]
    assert set(facts["best"]) <= {3, 4, 5}
    assert f"study out: {n} trials" in done.out


@pytest.mark.slow
def test_rows_outside_of_the_space_are_left_out_and_told(app):
    Path("known.csv").write_text("x,value\n0.5,0.1\n7,0.2\n")
    done = app("sphere", *STUDY, X, f"{LEARN}known.csv", "hydra.sweeper.n_trials=1")
    assert done.code == 0, done.err
    assert "1 of 2 trials lie in this space; line 3: x must be -1.0 to 1.0, got 7" in done.out
    assert len(load().trials) == 2
