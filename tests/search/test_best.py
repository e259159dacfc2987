"""A search's best points judged on seeds that it did not use."""

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf
from toy_apps import DESIGN, SEED, STUDY, load, options, run_process

from reg_sweep.runs.study import read_study
from reg_sweep.search.best import _literal, _swept
from reg_sweep.search.parameter import parameter

SEARCH = [
    *["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out", "hydra.sweeper.direction=maximize", *DESIGN],
    *["arm=plain,good", "x=interval(0, 1)", "hydra.sweeper.n_trials=6", SEED],
]
THREE_SEEDS = "hydra.sweeper.design.max_seeds=3"
BASELINE = "hydra.sweeper.baseline={x: 0, arm: plain}"


@pytest.mark.slow
def test_the_best_points_of_a_search_meet_the_baseline_on_seeds_that_it_did_not_use(app):
    done = app("arms", *SEARCH, BASELINE, "hydra.sweeper.confirm=true", "seed=4")
    confirmed, searched = load("out/confirm", "out_confirm"), load()
    study = read_study(Path("out/confirm/study.json"))
    assert study.kind == "until_verdict"
    assert study.design.baseline == {"x": 0, "arm": "plain"}
    best = sorted(searched.trials, key=lambda t: -t.value)
    assert [a["x"] for a in study.design.arms] == [t.params["x"] for t in best[:3]]
    assert min(t.params["seed"] for t in confirmed.trials) == 5
    assert re.search(r"the search's winner: trial \d+, arm=good .*\n  in the search, on seed 4: value", done.out)
    assert re.search(r"on the fresh seeds 5 to \d+: value \+.* against the baseline \(.*\): better", done.out)
    assert read_study(Path("out/study.json")).kind == "search"

    again = app("arms", *SEARCH, BASELINE, "hydra.sweeper.confirm=true", "seed=4")
    assert len(load("out/confirm", "out_confirm").trials) == len(confirmed.trials)
    assert "the search's winner" in again.out


@pytest.mark.slow
def test_a_confirmation_with_other_overrides_is_judged_by_them(app):
    confirm = options(confirm="true", confirm_with="['noise=0.001']")
    app("arms", *SEARCH, BASELINE, *confirm, THREE_SEEDS, "hydra/sweeper/pruner=median")
    assert "noise: 0.001" in Path("out/confirm/0/.hydra/config.yaml").read_text()
    assert "noise: 0.01\n" in Path("out/0/.hydra/config.yaml").read_text()


@pytest.mark.slow
def test_workers_share_the_confirming_sweep_too(tmp_path):
    done = run_process(tmp_path, "arms", *SEARCH, BASELINE, *options(confirm="true", workers=2), THREE_SEEDS)
    study = load(tmp_path / "out/confirm", "out_confirm")
    assert len({t.user_attrs["job"]["pid"] for t in study.trials}) == 2
    assert "the search's winner" in done.out


ZIPPED = ["arm=plain,good,bad", "x=0,0,0.5", "hydra.sweeper.zip=[[arm,x]]", "hydra.sweeper.direction=maximize", *DESIGN]
CONFIRM = [*options(confirm="true", n_trials=4), THREE_SEEDS, SEED]


@pytest.mark.parametrize("value", ["${n}", r"\${n}", r"\\${n}", "a ${n} b", "$n", r"\n"])
def test_a_value_that_the_job_resolves_reaches_the_confirmation_as_it_was_chosen(value):
    text = _literal(QuotedString(value, Quote.single).with_quotes())
    (point,) = OverridesParser.create().parse_override(f"enqueue=[{{s: {text}}}]").value()
    assert OmegaConf.create({"n": 0, "point": point}).point.s == value
    assert _literal("${n}") == r"'\${n}'"  # typed without quotes


def test_a_key_of_one_value_is_swept_even_where_it_is_null():
    (override,) = OverridesParser.create().parse_overrides(_swept([{"x": "null"}], True))
    assert parameter(override).listed() == [None]


@pytest.mark.slow
def test_keys_that_vary_together_are_arms_with_a_value_for_each(app):
    done = app("arms", *STUDY, *ZIPPED, "hydra.sweeper.until_verdict=true", "hydra.sweeper.baseline={arm: plain, x: 0}")
    assert re.search(r"^arm=good x=0 .* better$", done.out, re.M)
    assert "undecided:" not in done.out
    study = read_study(Path("out/study.json"))
    assert study.design.baseline == {"arm": "plain", "x": 0}
    assert study.design.arms == [{"arm": "good", "x": 0}, {"arm": "bad", "x": 0.5}]
    assert {(t.params["arm"], t.params["x"]) for t in study.trials} == {("plain", 0), ("good", 0), ("bad", 0.5)}


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["noise=choice(0.01,0.02)"]], ids=["alone", "beside another"])
def test_the_best_rows_of_keys_that_vary_together_are_confirmed(app, more):
    baseline = f"hydra.sweeper.baseline={{arm: plain, x: 0{', noise: 0.01' if more else ''}}}"
    done = app("arms", *STUDY, *ZIPPED, *CONFIRM, *more, baseline, "hydra/sweeper/sampler=grid")
    assert re.search(r"the search's winner: trial \d+, arm=good x=0", done.out)
    confirmed = read_study(Path("out/confirm/study.json")).design.arms
    assert ("good", 0) in [(arm["arm"], arm["x"]) for arm in confirmed]


@pytest.mark.slow
def test_arms_that_lack_a_conditional_key_are_judged_and_confirmed(app):
    under = ["arm=plain,good", "x=choice(0,1)", "hydra.sweeper.conditions={x: {arm: good}}"]
    shared = [*STUDY, *under, *DESIGN, "hydra.sweeper.direction=maximize"]
    app("arms", *shared, "hydra.sweeper.until_verdict=true")
    arms = [{"arm": "good", "x": 0}, {"arm": "good", "x": 1}]
    study = read_study(Path("out/study.json"))
    assert (study.design.baseline, study.design.arms) == ({"arm": "plain"}, arms)
    searched = [*shared, "hydra.sweep.dir=search", *CONFIRM, "hydra.sweeper.baseline={arm: plain}"]
    app("arms", *searched, "hydra/sweeper/sampler=random")
    assert all(arm in arms for arm in read_study(Path("search/confirm/study.json")).design.arms)
