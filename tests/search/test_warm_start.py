"""A study that takes trials or noise along from another: they are marked, fixed at its begin, and never its own."""

import json
import shutil
from pathlib import Path
from statistics import variance

import pytest
from toy_apps import SEED, STUDY, VERDICT, X, load

from reg_sweep.runs.study import read_study
from reg_sweep.search.storage import LEARNED

LEARN = "hydra.sweeper.learn_from="


@pytest.mark.slow
def test_what_is_learned_is_told_marked_and_never_counted(app):
    app("sphere", *STUDY, X, SEED, "hydra.sweeper.n_trials=3")
    shutil.move("out", "first")
    first = load("first").trials
    rows = [f"{t.params['x']},{t.value}" for t in first]
    Path("known.csv").write_text("\n".join(["x,value", *rows]))
    for source in ("known.csv", "first/study.db", "first/study.db#out", "first"):
        shutil.rmtree("out", ignore_errors=True)
        for n in (2, 3) if source == "first" else (3,):  # and again, when the study resumes
            done = app("sphere", *STUDY, X, f"{LEARN}'{source}'", f"hydra.sweeper.n_trials={n}")
        learned = [t for t in load().trials if LEARNED in t.user_attrs]
        assert [(t.params, t.value) for t in learned] == [(t.params, t.value) for t in first]
        facts = json.loads(Path("out/study.json").read_text())
        assert [t["number"] for t in facts["trials"]] == [3, 4, 5]
        assert set(facts["best"]) <= {3, 4, 5}
        assert f"study out: {n} trials" in done.out


@pytest.mark.slow
def test_rows_outside_of_the_space_are_left_out_and_told(app):
    Path("known.csv").write_text("x,value\n0.5,0.1\n7,0.2\n")
    done = app("sphere", *STUDY, X, f"{LEARN}known.csv", "hydra.sweeper.n_trials=1")
    assert "1 of 2 trials are in this space; line 3: x must be -1.0 to 1.0, got 7" in done.out
    assert len(load().trials) == 2


# ---- the noise of an earlier study

NOISE = "hydra.sweeper.noise_from=earlier"
ARMS = ["arm=plain,good", "hydra.sweeper.design.max_seeds=3"]


@pytest.mark.slow
def test_the_noise_of_an_earlier_study_is_fixed_when_the_study_begins_and_refused_of_another(app):
    app("arms", *VERDICT, *ARMS, "noise=1.0")
    shutil.move("out", "earlier")
    earlier = read_study(Path("earlier/study.json"))

    def refused(*typed):
        done = app("arms", *VERDICT, *typed, code=1)
        assert not Path("out").exists()
        return done.err

    assert "noise was 1.0, is 2.0" in refused(*ARMS, "noise=2.0", NOISE)
    assert "must be the folder of a study with a verdict" in refused(*ARMS, "noise=1.0", f"{NOISE}/nowhere")
    assert "must be left out with pairing none" in refused(*ARMS, NOISE, "hydra.sweeper.design.pairing=none")
    value = {(t.params["arm"], t.params["seed"]): t.values[0] for t in earlier.trials}
    differences = [value["good", seed] - value["plain", seed] for seed in (1, 2, 3)]
    typed = ["arms", *VERDICT, "arm=plain,bad", "noise=1.0", NOISE, "hydra.sweeper.first_seed=11"]
    app(*typed, "hydra.sweeper.design.max_seeds=3")
    design = read_study(Path("out/study.json")).design
    assert design.earlier_variance == pytest.approx(variance(differences))
    assert design.noise_from == "earlier"
    shutil.rmtree("earlier")
    app(*typed, "hydra.sweeper.design.max_seeds=5")
    assert read_study(Path("out/study.json")).design.earlier_variance == design.earlier_variance
