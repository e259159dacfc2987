"""A study until a verdict: its arms and seeds, what each interim analysis decides, and what a kill leaves alone."""

import random
from pathlib import Path

import optuna
import pytest
import toy_apps
from toy_apps import STUDY, VERDICT, load, options, run_process, start, states
from waiting import at_once, wait_until

from reg_sweep.runs.study import read_study
from reg_sweep.search.sequential import analyses_of
from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial_queue import TrialQueue

EFFECT = {"plain": 0.0, "same": 0.0, "good": 1.0, "bad": -1.0}


def plan_of(*overrides, max_seeds=20, **settings):
    design = {"design": {"margin": 0.1, "max_seeds": max_seeds}, "until_verdict": True, "direction": "maximize"}
    return toy_apps.plan_of(*overrides, **(design | settings))


def value_of(params, noise=0.01):
    """The shared luck of the seed, the arm's own, and the arm's effect."""
    shared, own = random.Random(params["seed"]), random.Random(f"{params['arm']} {params['seed']}")
    return shared.gauss() + noise * own.gauss() + EFFECT[params["arm"]]


def noisy(params):
    return value_of(params, noise=0.5)


def run(queue, study, limit=1000, value=value_of):
    """Runs what the queue hands out, at most so many trials; gives their parameters in order."""
    done = []
    while len(done) < limit and (taken := queue.take().trials):
        for trial in taken:
            study.tell(trial, value(trial.params))
            done.append(trial.params)
    return done


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(direction="maximize", storage=open_storage(f"{tmp_path}/study.log"))


@pytest.fixture
def queue_of(study, tmp_path):
    return lambda plan: TrialQueue(study, plan)


def final(study):
    return {
        arm["params"]["arm"]: (arm["decision"], look["seeds"]) for look in analyses_of(study) for arm in look["arms"]
    }


# ---- arms


def test_the_arms_are_all_combinations_and_the_first_as_written_or_as_named_is_the_baseline():
    for named, first in (
        ({}, {"norm": "bn", "l1": 0}),
        ({"baseline": {"norm": "gbn", "l1": 0}}, {"norm": "gbn", "l1": 0}),
    ):
        arms = plan_of("norm=bn,gbn", "l1=0,0.001", **named).until.arms
        assert (arms[0], len(arms)) == (first, 4)


def test_enqueued_points_are_the_arms_in_their_order():
    points = [{"norm": "gbn", "l1": 0.001}, {"norm": "bn", "l1": 0}]
    assert plan_of("norm=bn,gbn", "l1=0,0.001", enqueue=points).until.arms == points


@pytest.mark.parametrize(
    ("overrides", "settings", "complaint"),
    [
        (["x=interval(0, 1)"], {}, "arms to judge must be listed, but x is an interval"),
        (["x=1,2", "seed=1,2"], {}, "seed must not be set"),
        (["x=1,2", "seed=3"], {}, "seed must not be set"),
        (["x=1,2"], {"baseline": {"x": 3}}, "must be one of the arms, got x=3, which is none of the arms: x=1; x=2"),
        (["x=1,2"], {"baseline": {"y": 3}}, "none of the arms"),
        (["x=1,2", "y=1,2"], {"baseline": {"x": 1}}, "2 of the arms"),
        (["x=1,2", "y=1,2"], {"enqueue": [{"x": 1}]}, "an arm must set all of x, y"),
        (["x=1,2"], {"enqueue": [{"x": 3}]}, "x must be one of 1, 2, got 3"),
        (["x=1,2"], {"enqueue": [{"x": 1}]}, "at least 2 arms to compare, got 1"),
        (["x=1,2"], {"n_trials": 3}, "hydra.sweeper.n_trials must be left out"),
        (["x=1,2"], {"pruner": {"_target_": "optuna.pruners.MedianPruner"}}, "hydra/sweeper/pruner must be none"),
        (["x=1,2"], {"max_seeds": 2}, "max_seeds must be at least the first look (3), got 2"),
        (["x=1,2"], {"max_seeds": 4.5}, "max_seeds must be a whole number, got 4.5"),
        (["x=1,2"], {"design": {"margin": 0}}, "hydra.sweeper.design: margin must be a finite number above 0, got 0"),
        (["x=1,2"], {"design": {"looks": [5, 3]}}, "hydra.sweeper.design: looks must ascend, got [5, 3]"),
        (["x=1,2"], {"design": {"max_seed": 5}}, "design.max_seed must be one of the sweeper's settings, got an unk"),
        (["x=1,2"], {"direction": ["minimize", "maximize"]}, "needs a single objective, got 2 directions"),
    ],
)
def test_what_is_no_design_is_refused(overrides, settings, complaint):
    with pytest.raises(StudyError) as refused:
        plan_of(*overrides, **settings)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


# ---- looks


def test_seeds_are_bought_for_undecided_arms_and_the_baseline_until_all_are_decided(queue_of, study):
    done = run(queue_of(plan_of("arm=plain,same,good,bad")), study)
    assert [p["arm"] for p in done[:4]] == ["plain", "same", "good", "bad"]
    assert final(study) == {"same": ("shown equivalent", 5), "good": ("better", 3), "bad": ("worse", 3)}
    trained = {("plain", 5), ("same", 5), ("good", 3), ("bad", 3)}
    assert sorted((p["arm"], p["seed"]) for p in done) == sorted((a, s) for a, n in trained for s in range(1, n + 1))


def test_fresh_seeds_begin_where_they_are_told_to(queue_of, study):
    done = run(queue_of(plan_of("arm=plain,good", first_seed=7)), study)
    assert sorted({p["seed"] for p in done}) == [7, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [1, 5, 6, 7, 11])
def test_a_study_that_was_stopped_anywhere_ends_like_one_that_was_not(study, tmp_path, stopped_after):

    def whole(study, *limits):
        runs = [run(TrialQueue(study, plan_of("arm=plain,same", max_seeds=8)), study, n, noisy) for n in limits]
        return [p for done in runs for p in done]

    other = optuna.create_study(direction="maximize", storage=open_storage(f"{tmp_path}/other.log"))
    once = whole(study, 1000)
    assert whole(other, stopped_after, 1000) == once
    assert analyses_of(other) == analyses_of(study)
    assert len(once) == 16


def test_a_look_that_was_decided_stays_when_its_seeds_were_not_yet_enqueued(queue_of, study, monkeypatch):
    run(queue_of(plan_of("arm=plain,same", max_seeds=5)), study, 6, noisy)
    with monkeypatch.context() as patch:
        calls = []

        def die(params):
            calls.append(params)
            if len(calls) == 2:
                raise KeyboardInterrupt
            type(study).enqueue_trial(study, params)

        patch.setattr(study, "enqueue_trial", die)
        with pytest.raises(KeyboardInterrupt):
            queue_of(plan_of("arm=plain,same", max_seeds=5)).take()
    before = analyses_of(study)
    assert [look["seeds"] for look in before] == [3]
    run(queue_of(plan_of("arm=plain,same", max_seeds=5)), study, value=noisy)
    assert analyses_of(study)[:1] == before
    assert sorted((t.params["seed"], t.params["arm"]) for t in study.trials) == [
        (seed, arm) for seed in range(1, 6) for arm in ("plain", "same")
    ]


def test_more_seeds_go_on_with_a_finished_study_and_keep_its_looks(queue_of, study):
    run(queue_of(plan_of("arm=plain,same", max_seeds=4)), study, value=noisy)
    before = analyses_of(study)
    assert [look["seeds"] for look in before] == [3, 4]
    assert run(queue_of(plan_of("arm=plain,same", max_seeds=4)), study) == []
    more = run(queue_of(plan_of("arm=plain,same", max_seeds=8)), study, value=noisy)
    assert analyses_of(study)[:2] == before
    assert [look["seeds"] for look in analyses_of(study)] == [3, 4, 5, 8]
    assert len(more) == 8


def test_what_is_left_counts_the_seeds_of_looks_to_come_for_workers_share_them_too(queue_of, study):
    plan = plan_of("arm=plain,same", max_seeds=8)
    assert plan.n_left(study) == 16
    run(queue_of(plan), study, 5, noisy)
    assert plan.n_left(study) == 11
    run(queue_of(plan_of("arm=plain,same", max_seeds=3)), study, value=noisy)
    assert plan.n_left(study) == 10
    run(queue_of(plan), study, value=noisy)
    assert plan.n_left(study) == 0


def test_two_queues_enqueue_each_seed_once(database):
    """Each has a connection of its own, as processes do."""
    optuna.create_study(study_name="it", direction="maximize", storage=open_storage(database))

    def work():
        study = optuna.load_study(study_name="it", storage=open_storage(database))
        queue = TrialQueue(study, plan_of("arm=plain,same,good", max_seeds=5))
        while True:
            batch = queue.take()
            for trial in batch.trials:
                study.tell(trial, value_of(trial.params, noise=0.5))
            if not batch.trials and not batch.others_run:
                return

    at_once(work, 3)
    study = optuna.load_study(study_name="it", storage=open_storage(database))
    trained = [(t.params["arm"], t.params["seed"]) for t in study.trials]
    assert len(trained) == len(set(trained)) == 15
    assert [look["seeds"] for look in analyses_of(study)] == [3, 5]


def test_failed_seeds_are_not_trained_again_and_too_many_end_the_study(queue_of, study):
    queue = queue_of(plan_of("arm=plain,same", max_failure_rate=0.5))
    while trials := queue.take().trials:
        for trial in trials:
            queue.fail(trial, "it broke")
    assert states(study) == ["FAIL"] * 4 + ["WAITING"] * 2


# ---- the app


@pytest.mark.slow
def test_a_study_until_a_verdict_runs_as_a_sweep(app):
    done = app("arms", *VERDICT, "arm=plain,same,good,bad")
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.startswith("arm=")}
    assert "better" in lines["arm=good"]
    assert "worse" in lines["arm=bad"]
    assert "shown equivalent" in lines["arm=same"]
    n_runs = len(load().trials)
    assert f"{n_runs} runs; 20 seeds of every arm would have been 80: {80 - n_runs} saved" in done.out
    assert "best" not in done.out
    assert not Path("out/experiment").exists()
    study = read_study(Path("out/study.json"))
    assert study.kind == "until_verdict"
    assert study.design.baseline == {"arm": "plain"}
    found = {arm.params["arm"]: arm.decision for look in study.looks for arm in look.arms}
    assert found == {"same": "shown equivalent", "good": "better", "bad": "worse"}


@pytest.mark.slow
def test_a_study_until_a_verdict_needs_no_design_and_each_number_of_it_can_be_typed(app):
    plain = [*STUDY, *options(until_verdict="true", direction="maximize"), "arm=plain,good"]
    app("arms", *plain)
    whole = read_study(Path("out/study.json")).design
    assert (whole.max_seeds, whole.margin, whole.alpha, whole.question) == (20, None, 0.05, "better")
    given = {"max_seeds": 4, "margin": 0.5, "alpha": 0.01, "question": "not_worse", "pairing": "none"}
    app("arms", *plain, "hydra.sweep.dir=other", *(f"hydra.sweeper.design.{k}={v}" for k, v in given.items()))
    typed = read_study(Path("other/study.json")).design
    assert {name: getattr(typed, name) for name in given} == given


@pytest.mark.slow
def test_undecided_arms_end_with_the_command_that_adds_seeds(app):
    command = ["arms", *VERDICT, "arm=plain,same", "noise=0.3", "hydra.sweeper.design.max_seeds=3"]
    done = app(*command)
    assert "more seeds for arm=same:" in done.out
    half_written = Path("out/.study.json.12-0123abcd.reg_sweep.tmp")  # by a process that was killed
    half_written.touch()
    app(*command[:-1], "hydra.sweeper.design.max_seeds=6")
    assert not half_written.exists()
    assert "hydra.sweeper.design.max_seeds=6" in done.out
    assert [look.seeds for look in read_study(Path("out/study.json")).looks] == [3, 5, 6]


@pytest.mark.slow
def test_a_design_that_spends_all_of_its_error_ends_and_is_not_continued(app):
    command = ["arms", *VERDICT, "arm=plain,same", "noise=0.3", "hydra.sweeper.design.spending=all"]
    done = app(*command, "hydra.sweeper.design.max_seeds=5")
    assert read_study(Path("out/study.json")).design.spending == "all"
    assert "the whole error rate is spent: to give arm=same more seeds, start a new study" in done.out
    more = app(*command, "hydra.sweeper.design.max_seeds=10", code=1)
    assert "looks was 3, 5, is 3, 5, 8, 10" in more.err.splitlines()[0]
    app(*command, "hydra.sweeper.design.max_seeds=5", "hydra.sweep.dir=fresh", "hydra.sweeper.first_seed=6")


@pytest.mark.slow
def test_a_study_resumed_with_another_design_is_refused(app):
    app("arms", *VERDICT, "arm=plain,good")
    for change, difference in (
        ("hydra.sweeper.design.margin=0.2", "margin was 0.1, is 0.2"),
        ("hydra.sweeper.design.alpha=0.01", "alpha was 0.05, is 0.01"),
        ("hydra.sweeper.design.looks=[3,9]", "looks was 3, 5, 8, 12, 20, is 3, 9"),
        ("hydra.sweeper.baseline={arm: good}", "baseline was arm=plain, is arm=good"),
        ("hydra.sweeper.first_seed=5", "first_seed was 1, is 5"),
        ("arm=plain,bad", "arms was arm=good, is arm=bad"),
        ("noise=0.02", "noise was 0.01, is 0.02"),
    ):
        swept = [change] if change.startswith("arm=") else ["arm=plain,good", change]
        done = app("arms", *VERDICT, *swept, "hydra.sweeper.extend=true", code=1)
        assert difference in done.err.splitlines()[0]
    assert len(load().trials) == 6


@pytest.mark.slow
def test_an_arm_that_fails_or_diverges_is_told(app):
    done = app("arms", *VERDICT, "arm=plain,wild,broken", "hydra.sweeper.design.max_seeds=3")
    assert "not ranked, 3 of 3 diverged" in done.out
    assert "not ranked, 1 of 3 failed" in done.out
    turned = app("arms", *VERDICT, "hydra.sweep.dir=other", "arm=broken,good", "hydra.sweeper.design.max_seeds=3")
    assert "the baseline failed on 1 of 3 seeds, on which no arm can be compared" in turned.out


@pytest.mark.slow
def test_workers_share_it_and_a_kill_between_looks_costs_nothing(tmp_path):
    more = [*VERDICT, "arm=plain,same,good", "noise=0.3", "hydra.sweeper.workers=2", "hydra.sweeper.design.max_seeds=5"]
    quick = ["hydra.sweeper.heartbeat_interval=0.3", "hydra.sweeper.grace_period=1.5"]
    process = start(tmp_path, "arms", *more, *quick)
    wait_until((tmp_path / "out/5").exists, "sixth trial")
    process.kill()
    process.end()
    run_process(tmp_path, "arms", *more, *quick)
    trials = load(tmp_path / "out").trials
    trained = [(t.params["arm"], t.params["seed"]) for t in trials]
    assert len(trained) == len(set(trained))
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert {s for a, s in trained if a == "same"} == {1, 2, 3, 4, 5}
