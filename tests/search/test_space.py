"""Hydra's override grammar as Optuna's distributions and back; keys that vary together; conditional spaces."""

import json
import re
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from toy_apps import APPS, GRID, SEED, STUDY, load, options

from reg_sweep.hydra_app.internals import element_text
from reg_sweep.search.parameter import _named, parameter, split_params
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import space


def parsed(*overrides):
    return OverridesParser.create().parse_overrides(list(overrides))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("x=1,2,3", CategoricalDistribution([1, 2, 3])),
        ("x=a,0.5,true,null", CategoricalDistribution(["a", 0.5, True, None])),
        ("x=shuffle(b, a)", CategoricalDistribution(["b", "a"])),
        ("x=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
        ("x=1,true", CategoricalDistribution(["1", "True"])),
        ("x=1,1", CategoricalDistribution([1])),
        ("x=null,null", CategoricalDistribution([None])),
        ("x=range(1, 10)", IntDistribution(1, 9)),
        ("x=range(0, 10, 5)", IntDistribution(0, 5, step=5)),
        ("x=range(10, 0, -3)", IntDistribution(1, 10, step=3)),
        ("x=shuffle(range(4))", IntDistribution(0, 3)),
        ("x=int(range(1.0, 4.0))", IntDistribution(1, 3)),
        ("x=float(range(1, 4))", FloatDistribution(1, 3, step=1)),
        ("x=range(0, 0.3, 0.1)", FloatDistribution(0, 0.2, step=0.1)),
        ("x=interval(0, 1)", FloatDistribution(0, 1)),
        ("x=tag(log, interval(1e-7, 0.1))", FloatDistribution(1e-7, 0.1, log=True)),
        ("x=tag(int, interval(1, 8))", IntDistribution(1, 8)),
        ("x=int(interval(1, 8))", IntDistribution(1, 8)),
        ("x=tag(log, int, interval(1, 8))", IntDistribution(1, 8, log=True)),
        ("+a.b=range(2)", IntDistribution(0, 1)),
    ],
)
def test_each_sweep_of_hydras_grammar_has_its_distribution(written, expected):
    assert parameter(parsed(written)[0]).distribution == expected


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("x=a,'b c'", "one of a, 'b c'"),
        ("x=range(1, 10)", "1 to 9, whole numbers"),
        ("x=range(0, 10, 5)", "0 to 5 by 5, whole numbers"),
        ("x=range(0, 0.3, 0.1)", "0.0 to 0.2 by 0.1"),
        ("x=tag(log, interval(1e-7, 0.1))", "1e-07 to 0.1, log"),
    ],
)
def test_a_parameter_says_what_may_be_chosen(written, said):
    assert str(parameter(parsed(written)[0])) == said


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("x=tag(log, interval(0, 1))", "must start above 0, got 0"),
        ("x=tag(log, interval(-1, 1))", "must start above 0, got -1"),
        ("x=interval(2, 1)", "the interval is empty"),
        ("x=range(3, 3)", "the range from 3 to 3, by steps of 1, is empty"),
        ("x=range(0, 1, -0.1)", "is empty"),
        ("x=tag(sqrt, interval(0, 1))", "unknown tag sqrt"),
        ("x=tag(log, range(1, 5))", "unknown tag log"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(written, complaint):
    with pytest.raises(StudyError, match=re.escape(complaint)):
        parameter(parsed(written)[0])


@pytest.mark.parametrize(
    "cast", ["int(range(0,5,1.5))", "int(range(0.5,3.5))", "float(range(0,3))", "int(range(5,0,-2))", "range(0,5,1.5)"]
)
def test_a_cast_of_a_range_gives_the_values_of_hydras_grammar(cast):
    (override,) = parsed(f"x={cast}")
    found = parameter(override)
    assert sorted(found.listed()) == sorted(set(override.sweep_iterator()))
    assert [found.override(v) for v in found.listed()] == [f"x={v}" for v in found.listed()]


@pytest.mark.parametrize(("written", "low", "high"), [("-1e15,1e-15,1.0", -1e15, 0.0), ("1e15,-1e-15,-1.0", 0.0, 1e15)])
def test_a_ranges_end_is_compared_exactly(written, low, high):
    """Rounded to 28 digits, as decimals are unless told otherwise, the end would be the last value, and left out."""
    (found,) = parsed(f"x=range({written})")
    assert parameter(found).distribution == FloatDistribution(low, high, step=1.0)


@given(low=st.integers(-(10**9), 10**9), step=st.integers(1, 5000), n=st.integers(1, 30), more=st.integers(1, 1000))
def test_a_float_ranges_values_are_its_decimals_end_excluded(low, step, n, more):
    """In thousandths: low, low + step, ... below the end, however the sampler's floats are rounded."""
    end = low + (n - 1) * step + min(more, step)
    p = parameter(parsed(f"x=range({low / 1000!r}, {end / 1000!r}, {step / 1000!r})")[0])
    assert p.listed() == [(low + k * step) / 1000 for k in range(n)]
    for k, value in enumerate(p.listed()):
        assert p.override(value * (1 + 1e-15)) == f"x={(low + k * step) / 1000}"


@given(st.lists(st.one_of(st.integers(), st.booleans(), st.none(), st.text("ab =,: é1", min_size=1)), min_size=2))
def test_a_choice_comes_back_as_it_was_written(elements):
    """Whatever is chosen, its override parses to the element that the user wrote."""
    quoted = [f"'{e}'" if isinstance(e, str) else "null" if e is None else str(e) for e in elements]
    p = parameter(parsed(f"x={','.join(quoted)}")[0])
    written = [parsed(p.override(choice))[0].value() for choice in p.distribution.choices]
    assert list(map(repr, written)) == list(dict.fromkeys(map(repr, elements)))


@pytest.mark.parametrize("name", ["one", "1", "007", "true", "null", "a b", "a,b", "-x", "it's"])
def test_a_files_name_that_a_glob_finds_is_chosen_as_it_is(name):
    assert parsed(f"group={element_text(_named(name))}")[0].value() == name


@given(st.floats(1e-12, 1e12))
def test_an_intervals_value_reaches_the_app_unrounded(value):
    p = parameter(parsed("x=tag(log, interval(1e-12, 1e12))")[0])
    assert parsed(p.override(value))[0].value() == value


def test_fixed_and_deleted_overrides_reach_every_job_in_the_order_of_the_command():
    s = space(parsed("b=2", "~c", "x=1,2", "+d=hi there", "b=3", "~e=5"))
    assert s.overrides({"x": 2}) == ["b=3", "~c", "x=2", "+d=hi there", "~e=5"]
    assert list(s.distributions) == ["x"]


def test_zipped_keys_vary_together_and_a_value_may_come_twice():
    s = space(parsed("norm=bn", "l1=0,0.5,0,0.5", "+x=range(0,4)", "l2=0,0,1,1"), [["l1", "x", "l2"]])
    assert list(s.parameters) == ["l1,x,l2"]
    (zipped,) = s.parameters.values()
    assert list(zipped.listed()) == ["0,0,0", "0.5,1,0", "0,2,1", "0.5,3,1"]
    assert str(zipped) == "one of (0,0,0), (0.5,1,0), (0,2,1), (0.5,3,1)"
    assert s.overrides({"l1,x,l2": "0.5,1,0"}) == ["norm=bn", "l1=0.5", "+x=1", "l2=0"]
    assert s.point({"l1": 0, "x": 2, "l2": 1}) == {"l1,x,l2": "0,2,1"}
    assert split_params({"l1,l2": "0.5,1", "k": 1}, {"l1": 0.5, "l2": 1}) == {"l1": 0.5, "l2": 1, "k": 1}
    with pytest.raises(StudyError, match=r"l1,x,l2 must be one of \(0,0,0\), .* got l1=0, x=1, l2=None"):
        s.point({"l1": 0, "x": 1})


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (["a", "b"], r"must list groups of keys, such as \[\[l1,l2\]\], got \['a', 'b'\]"),
        ([["a"]], "must list groups of keys"),
        ([["a", "c"]], "c must vary together with a, but has only one value"),
        ([["a", "d"]], "d is not swept: the space has a, b, x"),
        ([["a", "b"]], "the same number of values, but a has 2, b has 3"),
        ([["a", "x"]], "x is an interval: write choices or a range"),
        ([["a", "a"]], "a must be in only one group, and only once"),
    ],
)
def test_keys_that_can_not_vary_together_are_refused(groups, complaint):
    with pytest.raises(StudyError, match=complaint):
        space(parsed("a=1,2", "b=1,2,3", "x=interval(0,1)", "c=1"), groups)


def test_a_trial_keeps_a_value_that_the_space_does_not_have():
    s = space(parsed("x=1,2", "+y=5", "z=1"))
    assert s.overrides({"x": 2, "y": 3, "w": "a b"}) == ["x=2", "z=1", "+y=3", "w=a\\ b"]


def test_a_fixed_value_becomes_a_trials_attribute_unless_it_holds_a_servers_address():
    """Attributes lie in the storage, and a dashboard shows them."""
    url = "postgresql://me:s3cr3t@db.example:5432/runs"
    fixed = ["epochs=3", f"+uri='{url}'", f"++uris=['{url}']", f"tracker={{uri: '{url}', n: 1}}", "file=sqlite:///a.db"]
    study = optuna.create_study()
    overrides = space(parsed("x=1,2", *fixed, "~left")).job(study.ask({"x": CategoricalDistribution([1, 2])}))
    assert study.trials[0].user_attrs == {"epochs": 3, "file": "sqlite:///a.db"}
    assert sum("s3cr3t" in o for o in overrides) == 3  # the job itself gets what was typed


# ---- keys that vary together in a study


ZIP = ["x=0,0.25,1", "y=0,-0.25,-0.25", "hydra.sweeper.zip=[[x,y]]"]


@pytest.mark.slow
def test_a_zipped_grid_has_a_trial_for_each_row_and_its_record_the_single_keys(app):
    done = app("sphere", *STUDY, *ZIP, GRID)
    wanted = {(0, 0), (0.25, -0.25), (1, -0.25)}
    assert {(t.user_attrs["x"], t.user_attrs["y"]) for t in load().trials} == wanted
    facts = json.loads(Path("out/study.json").read_text())
    assert {(t["params"]["x"], t["params"]["y"]) for t in facts["trials"]} == wanted
    assert all("attributes" not in t for t in facts["trials"])
    assert "x: 0.25\n'y': -0.25\n" in Path("out/experiment/best.yaml").read_text()
    assert Path("out/optimization_results.yaml").read_text().startswith("name: optuna\nbest_params:\n  x: 0.25\n")
    assert "trial 0: x,y=" in done.out


@pytest.mark.slow
def test_a_point_of_zipped_keys_is_enqueued_by_single_keys(app):
    app("sphere", *STUDY, *ZIP, *options(n_trials=1, enqueue="[{x: 1, y: -0.25}]"))
    assert load().trials[0].params == {"x,y": "1,-0.25"}


# ---- spaces that depend on what was chosen


KIND = "kind=plain,rated"
CUSTOM = "hydra.sweeper.custom_search_space=conditional"
RANDOM = "hydra/sweeper/sampler=random"


@pytest.mark.slow
def test_a_parameter_is_suggested_where_another_asks_for_it(app, monkeypatch):
    monkeypatch.syspath_prepend(APPS)  # as `python conditional.py` does
    typed = ["conditional", *STUDY, KIND, RANDOM, SEED, "hydra.sweeper.n_trials=8", "width=0.25"]
    app(*typed, f"{CUSTOM}.configure")
    study = load()
    assert {t.params["kind"] for t in study.trials} == {"plain", "rated"}
    for t in study.trials:
        assert ("rate" in t.params) == ("+word" in t.params) == (t.params["kind"] == "rated")
        assert 1 <= t.params.get("rate", 1) <= 1.25
    assert OmegaConf.load("out/optimization_results.yaml").best_params == study.best_params
    best = app("conditional", "--config-dir", "out", "+experiment=best", "--cfg", "job")
    assert f"rate: {study.best_params['rate']}\n" in best.out
    changed = app(*typed, f"{CUSTOM}.fixes", code=1)
    assert "study out was started with other settings: hydra.sweeper.custom_search_space was" in changed.err


@pytest.mark.slow
def test_a_later_parameter_may_be_enqueued(app, monkeypatch):
    monkeypatch.syspath_prepend(APPS)
    point = options(n_trials=1, enqueue="[{kind: rated, rate: 1.125}]")
    app("conditional", *STUDY, KIND, RANDOM, f"{CUSTOM}.configure", *point)
    assert load().trials[0].params["rate"] == 1.125


@pytest.mark.slow
def test_fixed_values_and_notes_of_the_app_are_attributes_of_each_trial(app):
    app("sphere", *STUDY, "x=0,1", "scale=ten", "z=2", GRID)
    for t in load().trials:
        assert {k: v for k, v in t.user_attrs.items() if k != "job"} == {"scale": "ten", "z": 2}
    facts = json.loads(Path("out/study.json").read_text())
    assert facts["trials"][0]["attributes"] == {"scale": "ten", "z": 2}


# ---- conditions

KINDS = ("kind=plain,rated,deep", "rate=1,2", "depth=3,4")
UNDER = {"rate": {"kind": ["rated", "deep"]}, "depth": {"kind": "deep", "rate": 2}}


def test_a_conditional_key_has_values_only_where_its_condition_holds():
    s = space(parsed(*KINDS), conditions=UNDER)
    assert [tuple(p.values()) for p in s.points()] == [
        ("plain",), ("rated", 1), ("rated", 2), ("deep", 1), ("deep", 2, 3), ("deep", 2, 4),
    ]  # fmt: skip
    assert s.size() == 6
    assert list(s.distributions) == ["kind"]
    assert s.text("depth") == "one of 3, 4, where kind is deep and rate is 2"
    assert s.overrides({"kind": "plain"}) == ["kind=plain"]


def test_a_trial_draws_the_keys_whose_conditions_hold_and_keeps_them():
    s = space(parsed("kind=plain,deep", "rate=interval(1, 2)"), conditions={"rate": {"kind": "deep"}})
    study = optuna.create_study()
    for kind in ("plain", "deep"):
        study.enqueue_trial({"kind": kind})
        trial = study.ask(s.distributions)
        first = s.job(trial)
        assert ("rate" in trial.params) == (kind == "deep")
        assert s.job(trial) == first  # as when a killed trial resumes


@pytest.mark.parametrize(
    ("written", "conditions", "complaint"),
    [
        (KINDS, {"rate": {"kind": "bent"}}, "kind is bent, but it is one of plain, rated, deep"),
        (KINDS, {"rate": {"nope": 1}}, "but nope is not swept"),
        (KINDS, {"nope": {"kind": "deep"}}, "nope is not swept"),
        (KINDS, {"rate": 3}, "got {rate: 3}"),
        (KINDS, {"rate": {}}, "must map swept keys to the values"),
        (KINDS, {"rate": {"kind": "deep", "depth": 3}, "depth": {"rate": 1}}, "must not depend on itself"),
        (KINDS, {"rate": {"kind": "rated"}, "depth": {"rate": 1, "kind": "deep"}}, "different values of kind"),
        (("x=interval(0, 1)", "y=1,2"), {"y": {"x": 0}}, "a condition needs a key with choices or a range"),
    ],
)
def test_a_condition_that_can_not_hold_is_refused(written, conditions, complaint):
    with pytest.raises(StudyError, match=re.escape(complaint)):
        space(parsed(*written), conditions=conditions)


def test_a_parent_that_the_command_fixes_settles_the_configs_conditions():
    conditions = {"rate": {"kind": "deep"}}
    assert space(parsed("rate=1,2", "kind=deep"), conditions=conditions, typed={"kind"}).conditions == {}
    assert space(parsed("x=1,2", "rate=1,2", "kind=plain"), conditions=conditions, typed={"kind"}).size() == 2
    with pytest.raises(StudyError, match="rate is swept only if kind is deep, but it is plain"):
        space(parsed("rate=1,2", "kind=plain"), conditions=conditions, typed={"kind", "rate"})


# ---- what Optuna and JSON can't hold


@pytest.mark.parametrize("element", ["nan", "-inf", "9007199254740993", "[1,2]"])
def test_a_choice_that_json_can_not_hold_is_held_as_it_is_written(element):
    p = parameter(parsed(f"x={element},1")[0])
    held, _ = p.distribution.choices
    assert held == json.loads(json.dumps(held)) == element.replace(" ", "")
    assert p.override(held) == f"x={element}"
    assert p.choice(parsed(f"x={element}")[0].value()) == held


@pytest.mark.parametrize("written", ["x=range(0, 9007199254740994)", "x=int(interval(-1e17, 0))"])
def test_whole_numbers_that_would_be_rounded_are_refused(written):
    with pytest.raises(StudyError, match=re.escape("between -2^53 and 2^53")):
        parameter(parsed(written)[0])


def test_the_commands_override_counts_whatever_its_plus():
    s = space(parsed("x=1,2", "y=1,2", "+x=5"))
    assert list(s.parameters) == ["y"]
    assert s.overrides({"y": 1}) == ["+x=5", "y=1"]
