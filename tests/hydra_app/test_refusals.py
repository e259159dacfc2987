"""What an override may not say, told from the words that were typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from reg_sweep.hydra_app.refusals import MAX_JOBS, wrong_choice, wrong_deletion, wrong_grid, wrong_space, wrong_switch


def parsed(*overrides):
    return OverridesParser.create().parse_overrides(list(overrides))


@pytest.mark.parametrize("value", ["3", "null", "1.5", "true", "[]", "[1]", "[bn,3]", "choice(bn,3)", "bn,null"])
def test_a_group_takes_nothing_but_names_of_options(value):
    said = wrong_choice(parsed("l1=3", f"norm={value}"), {"norm"}.__contains__)
    assert said is not None
    assert said.startswith("norm must be the name of an option, got ")


@pytest.mark.parametrize("override", ["norm=bn", "norm='3'", "norm=bn,gbn", "norm=[bn,gbn]", "norm={name:bn}", "~norm"])
def test_names_of_options_and_keys_of_a_group_are_taken(override):
    assert wrong_choice(parsed(override, "l1=3"), {"norm"}.__contains__) is None


def test_what_every_run_needs_is_not_deleted():
    assert wrong_deletion(parsed("l1=0", "~seed"), {"seed", "l1"}) == (
        "seed must be there, got ~seed: give it a value instead"
    )
    assert wrong_deletion(parsed("~experiment"), {"seed", "l1"}) is None


@pytest.mark.parametrize("value", ["4000", "-1", "0.5", "true,2"])
def test_a_switch_is_no_number(value):
    assert "report must be true or false, got" in str(wrong_switch(parsed(f"report={value}"), {"report"}))


@pytest.mark.parametrize("override", ["report=true", "report=1", "report=0", "report=yes", "report=true,false", "l1=7"])
def test_what_says_yes_or_no_is_a_switch(override):
    assert wrong_switch(parsed(override), {"report"}) is None


@pytest.mark.parametrize("override", ["hydra.sweeper.params={l1:null}", "hydra.sweeper.params.l1=null"])
def test_a_space_that_holds_null_is_refused_by_its_key(override):
    assert str(wrong_space(parsed(override))).startswith("hydra.sweeper.params.l1 must be a value or a sweep, got null")
    assert wrong_space(parsed("hydra.sweeper.params={l1:'0,1'}", "l1=null")) is None


def test_a_grid_is_counted_without_being_listed():
    assert wrong_grid(parsed("seed=range(0,100000000)")) == (
        "a grid must have at most 100,000 jobs, got 100,000,000: sweep fewer values"
    )
    assert "got 1,000,000,000:" in str(wrong_grid(parsed(*(f"{key}=range(0,1000)" for key in "abc"))))
    assert wrong_grid(parsed(f"seed=range(0,{MAX_JOBS})", "l1=0", "norm=[bn,gbn]")) is None
    assert wrong_grid(parsed("l1=range(0,1,0.1)", "norm=bn,gbn", "x=glob(*)", "y=interval(0,1)")) is None


@pytest.mark.parametrize("override", ["seed=range(3,0)", "seed=range(0,3,0)"])
def test_a_grid_of_nothing_is_refused(override):
    assert wrong_grid(parsed(override)) == "seed must have at least one value to sweep, got an empty one"
