"""The end of a study: its results as text and files, its verdict, and the importance of its parameters."""

import json
import math
import random
import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from pages import blank_pictures
from toy_apps import SEED, STUDY, X, load, options, states
from trees import design_of, write_run

from reg_sweep.runs.ranking import points
from reg_sweep.runs.study import TRIAL_STATES, read_study, study_json
from reg_sweep.search.console import difference_text, last_look, verdict_table
from reg_sweep.search.plan import outcomes
from reg_sweep.search.results import TRIAL_WORDS, importances, study_record, write_report


def test_writer_and_reader_mean_the_same_file():
    assert set(TRIAL_WORDS.values()) == set(TRIAL_STATES)
    assert TRIAL_WORDS.keys() == {state.name for state in optuna.trial.TrialState}


@pytest.mark.slow
def test_the_file_tells_what_optuna_knows(app):
    points = options(enqueue="[{x: 0.3}, {x: 0.4}, {x: -1}, {x: 0.9}]", n_trials=4)
    prune = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2"]
    prune.append("hydra.sweeper.pruner.n_warmup_steps=1")
    app("descent", *STUDY, X, *points, *prune, "fails_above=0.8")
    study, read = load(), read_study(Path("out/study.json"))
    assert (read.name, read.directions) == ("out", ["minimize"])
    assert [t.state for t in read.trials] == ["complete", "complete", "pruned", "failed"]
    for ours, theirs in zip(read.trials, study.trials, strict=True):
        assert (ours.params, ours.directory) == (theirs.params, Path("out", str(theirs.number)))
        if ours.state == "complete":
            assert list(ours.values) == theirs.values
        if theirs.intermediate_values:
            assert ours.last == theirs.intermediate_values[theirs.last_step]
    assert read.ranked[0].number == study.best_trial.number
    assert read.trials[3].message == "ValueError: x is too large: True"


def test_an_infinite_value_becomes_null_and_the_file_stays_json():
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=math.inf, intermediate_values={1: 2.0, 2: math.inf}))

    def refuse(constant):
        raise AssertionError(constant)

    (trial,) = json.loads(study_json(study_record(study, {})), parse_constant=refuse)["trials"]
    assert trial["values"] == [None]
    assert trial["steps"] == [[1, 2.0], [2, None]]


@blank_pictures()
def test_the_report_that_was_asked_for_is_written_beside_the_study(tmp_path, caplog):
    with caplog.at_level("INFO"):
        write_report(tmp_path)
        assert not (tmp_path / "report").exists()
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        assert caplog.messages[0].startswith("no report: reg_sweep.report: no runs")
        write_run(tmp_path / "0", seed=1)
        write_run(tmp_path / "1", l1=0.1, seed=1)
        write_report(tmp_path)
    assert (tmp_path / "report" / "index.html").is_file()
    assert caplog.messages[1].endswith("report/index.html")


@pytest.mark.slow
def test_too_many_failures_end_the_study_with_an_error_and_its_file(app):
    done = app("descent", *STUDY, X, "fails_above=-2", *options(n_trials=10, max_failure_rate=0.2), code=1)
    assert "3 of 10 trials failed" in done.err
    assert states(load()) == ["FAIL"] * 3
    assert [t.state for t in read_study(Path("out/study.json")).trials] == ["failed"] * 3


@pytest.mark.slow
def test_the_best_trials_file_runs_as_it_is(app):
    app("sphere", *STUDY, X, "y=-0.2", "scale=ten,one", "hydra.sweeper.n_trials=8", SEED)
    best = load().best_trial
    said = Path("out/experiment/best.yaml").read_text().splitlines()[1]
    assert said == f"# study out: trial {best.number}, value {best.value:.6g}"
    done = app("sphere", "--config-dir", "out", "experiment=best", "--cfg", "job")
    wanted = {"one": 1.0, "ten": 10.0}[best.params["scale"]]
    assert f"factor: {wanted}\n" in done.out
    assert f"x: {best.params['x']}\n" in done.out
    assert "'y': -0.2\n" in done.out


@pytest.mark.slow
def test_a_study_ends_with_its_best_trials_and_the_next_commands(app):
    done = app("sphere", *STUDY, "x=interval(-1, 1)", "y=interval(-0.2, 0.2)", "hydra.sweeper.n_trials=16", SEED)
    best = load().best_trial
    table = done.out[done.out.index("best trials") :].splitlines()
    assert table[1].split() == ["trial", "value", "x", "y"]
    assert table[2].split()[0] == str(best.number)
    assert re.search(r"importance of each parameter \(fANOVA\): [xy]=0\.\d+ [xy]=0\.\d+", done.out)
    assert f"optuna-dashboard sqlite:///{Path('out/study.db').absolute()}" in done.out
    assert "--config-dir out experiment=best" in done.out


@pytest.mark.slow
def test_a_study_without_a_finite_value_has_no_best_trial(app):
    done = app("descent", *STUDY, "x=1,2", "returns=infinity", "hydra.sweeper.n_trials=2")
    assert "no trial has a finite value" in done.out
    assert "run it" not in done.out
    assert not Path("out/experiment").exists()


# ---- the end of a study until a verdict, as text


DESIGN = design_of("test_accuracy", [3, 5], [{"norm": norm} for norm in ("bn", "gbn", "gn", "ln")])


def arm(norm, decision, estimate=0.25, n_diverged=0, n_failed=0):
    bounds = {"ci_low": None, "ci_high": None} if estimate is None else {"ci_low": -0.5, "ci_high": 1.0}
    counts = {"n_seeds": 3, "n_diverged": n_diverged, "n_failed": n_failed}
    return {"params": {"norm": norm}, "decision": decision, "estimate": estimate, **bounds, **counts}


LOOKS = [
    {"seeds": 3, "arms": [arm("gbn", "better"), arm("gn", "undecided")]},
    {"seeds": 5, "arms": [arm("gn", "undecided", None, n_diverged=2, n_failed=1)]},
]


def test_the_table_has_each_arms_last_look_and_what_was_lost():
    header, gbn, gn, ln = verdict_table(DESIGN, LOOKS).splitlines()
    assert header.split("  ")[-1] == "verdict"
    assert "95% interval (90% if equivalent)" in header
    assert gbn.split() == ["norm=gbn", "3", "+25.00", "points", "-50.00", "to", "+100.00", "better"]
    assert gn.split(maxsplit=4) == ["norm=gn", "5", "-", "-", "not ranked, 2 of 5 diverged, 1 of 5 failed"]
    assert ln.endswith("not analysed yet")


def test_a_recorded_verdict_goes_before_the_rule_for_older_records():
    undecided = arm("gbn", "undecided") | {"n_seeds": 3}
    looks = [{"seeds": 3, "arms": [undecided | {"verdict": "not ranked"}]}]
    assert verdict_table(DESIGN, looks).splitlines()[1].endswith("not ranked")
    older = [{"seeds": 3, "arms": [undecided]}]
    assert verdict_table(DESIGN, older).splitlines()[1].endswith("no difference shown")


@pytest.mark.parametrize("own", [{"arms": [{"norm": "gbn"}]}, {"variance": "plain"}])
def test_the_table_gives_the_level_of_an_equivalence_interval_from_an_arms_own_variance(own):
    assert "95% interval (94% if equivalent)" in verdict_table(DESIGN | own, LOOKS).splitlines()[0]


def test_the_last_look_at_an_arm_is_the_one_that_judged_it_last():
    assert last_look({"norm": "gbn"}, LOOKS) == (3, LOOKS[0]["arms"][0])
    assert last_look({"norm": "gn"}, LOOKS) == (5, LOOKS[1]["arms"][0])
    assert last_look({"norm": "ln"}, LOOKS) == (0, None)


def test_a_difference_that_is_not_known_is_a_dash():
    assert difference_text(arm("gbn", "better"), "score") == ("+0.25", "-0.5 to +1")
    assert difference_text(arm("gbn", "undecided", None), "score") == ("-", "-")


def test_a_difference_of_accuracy_is_in_points_as_on_the_page():
    assert difference_text(arm("gbn", "better"), "test_accuracy") == ("+25.00 points", "-50.00 to +100.00")
    wide = arm("gbn", "better") | {"ci_low": -1.5, "ci_high": 2.0}
    assert difference_text(wide, "test_accuracy")[1] == "-100.00 to +100.00"
    assert difference_text(arm("gbn", "undecided") | {"estimate": -1e-9}, "val_accuracy")[0] == "0.00 points"


# ---- the importance of parameters


NORMS = CategoricalDistribution(["bn", "gbn", "none"])
LOG = FloatDistribution(1e-7, 1e-1, log=True)


def trial(number, value, params, spaces):
    created = create_trial(params=params, distributions={name: spaces[name] for name in params}, value=value)
    created.number = number
    return created


def shares(trials, replicates=()):
    return importances(points(outcomes(trials), replicates), trials, 1)


def test_what_explains_nearly_all_of_the_variance_is_named_and_the_seed_is_not_asked():
    """Optuna's own default gives the norm and the seed 0.49 each here."""
    draw = random.Random(1)
    spaces = {"norm": NORMS, "l1": LOG, "seed": CategoricalDistribution([1, 2, 3])}
    worth = {"bn": 0.0, "gbn": 0.1, "none": 1.0}
    grid = [(norm, l1, seed) for norm in worth for l1 in (1e-6, 1e-4, 1e-2) for seed in (1, 2, 3)]
    trials = [
        trial(i, worth[norm] + 0.05 * draw.random() + 0.05 * seed, {"norm": norm, "l1": l1, "seed": seed}, spaces)
        for i, (norm, l1, seed) in enumerate(grid)
    ]
    found = shares(trials, ["seed"])
    assert found.keys() == {"norm", "l1"}
    assert found["norm"] > 0.9
    assert sum(found.values()) == pytest.approx(1)


def test_a_log_scale_is_measured_in_its_logarithm():
    """Over 1e-7 to 1e-1 a step at 1e-5 lies in the first ten-thousandth of a plain scale."""
    draw = random.Random(2)
    spaces = {"l1": LOG, "x": FloatDistribution(0, 1)}
    points = [{"l1": 10 ** draw.uniform(-7, -1), "x": draw.random()} for _ in range(40)]
    trials = [trial(i, float(p["l1"] > 1e-5) + 0.2 * p["x"], p, spaces) for i, p in enumerate(points)]
    assert shares(trials)["l1"] > 0.9


def test_on_pure_noise_no_parameter_is_named():
    spaces, named = {"l1": LOG, "x": FloatDistribution(0, 1)}, 0
    for seed in range(20):
        draw = random.Random(seed)
        points = [{"l1": 10 ** draw.uniform(-7, -1), "x": draw.random()} for _ in range(11)]
        named += bool(shares([trial(i, draw.gauss(0, 1), params, spaces) for i, params in enumerate(points)]))
    assert named <= 3


def test_where_nothing_can_be_told_there_are_no_shares():
    spaces = {"norm": NORMS, "l1": LOG}
    same = [trial(i, 1.0, {"norm": norm, "l1": 1e-4 * (i + 1)}, spaces) for i, norm in enumerate(NORMS.choices)]
    assert shares(same) == {}
    assert shares([]) == {}
    one = [trial(i, float(i), {"norm": "bn", "l1": 1e-4 * (i + 1)}, spaces) for i in range(3)]
    assert shares(one) == {}


def test_huge_numbers_have_shares_too():
    spaces = {"x": FloatDistribution(0, 1e300), "y": FloatDistribution(1e9, 1e9 + 1)}
    draw = random.Random(3)
    drawn = [(draw.random(), draw.random()) for _ in range(30)]
    values = [(1e300 * (x + 5 * y), {"x": 1e300 * x, "y": 1e9 + y}) for x, y in drawn]
    assert shares([trial(i, value, params, spaces) for i, (value, params) in enumerate(values)])["y"] > 0.8
