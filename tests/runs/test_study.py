import json
import math
import tempfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import design_of, write_study

from reg_sweep.runs import study
from reg_sweep.runs.record import RecordError
from reg_sweep.runs.study import ArmLook, Kind, Look, Study, StudyDesign, Trial, new_study, read_studies, read_study
from reg_sweep.runs.study import write_study as write_record

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.lists(st.floats())
VALUES = st.floats(-10, 10).map(lambda v: round(v, 1))


def deep(n):
    return {"a": deep(n - 1)} if n else 1


def study_of(directions, values):
    trials = [Trial(n, "complete", {}, tuple(v), math.nan, None, "") for n, v in enumerate(values)]
    return Study(Path(), "it", directions, {}, trials)


@given(st.lists(VALUES, max_size=20), st.sampled_from(["minimize", "maximize"]))
def test_a_study_of_one_objective_ranks_its_trials_by_it(values, direction):
    ranked = [t.values[0] for t in study_of([direction], [[v] for v in values]).ranked]
    assert ranked == sorted(values, reverse=direction == "maximize")


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_a_study_of_two_objectives_keeps_the_trials_that_no_other_beats(values):
    front = {t.number for t in study_of(["minimize", "maximize"], values).ranked}
    for number, (low, high) in enumerate(values):
        is_beaten = any((a <= low and b > high) or (a < low and b >= high) for a, b in values)
        assert (number not in front) == is_beaten


def test_a_study_ranks_no_trial_whose_value_is_not_finite(tmp_path):
    study = read_study(write_study(tmp_path, [{"values": [None]}, {"values": [2.0]}, {"state": "pruned"}]))
    assert [t.number for t in study.ranked] == [1]
    assert math.isnan(study.trials[0].values[0])


def test_a_study_names_the_parameters_that_differ_the_most_important_first(tmp_path):
    trials = [{"params": {"l1": 1.0, "l2": 0.5, "norm": "bn"}}, {"params": {"l1": 2.0, "l2": 0.25, "norm": "bn"}}]
    study = read_study(write_study(tmp_path, trials, importances={"l1": 0.1, "l2": 0.9}))
    assert study.parameters == ["l2", "l1"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda facts: facts.update(schema=2), "newer reg_sweep (schema 2, this one reads up to 1): upgrade reg_sweep"),
        (lambda facts: facts.pop("schema"), "not a readable study"),
        (lambda facts: facts.pop("trials"), "not a readable study"),
        (lambda facts: facts.update(directions=["sideways"]), "not a readable study"),
        (lambda facts: facts.update(directions=[]), "not a readable study"),
        (lambda facts: facts.update(importances=None), "not a readable study"),
        (lambda facts: facts["trials"][0].update(values=[1, 2]), "not a readable study"),
        (lambda facts: facts["trials"][0].update(state="lost"), "not a readable study"),
        (lambda facts: facts["trials"][0].update(params=[1]), "not a readable study"),
        (lambda facts: facts["trials"][0].update(steps=[[1, "x"]]), "not a readable study"),
        (lambda facts: facts.update(kind="guess"), "not a readable study"),
        (lambda facts: facts.update(kind="until_verdict", design={"looks": [3]}), "not a readable study"),
        (lambda facts: facts.update(kind="until_verdict", looks=[{"seeds": 3}]), "not a readable study"),
    ],
)
def test_a_study_that_is_damaged_is_named_and_the_others_are_read(tmp_path, change, says):
    write_study(tmp_path / "good", [{}])
    path = write_study(tmp_path / "bad", [{}])
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    problems = []
    assert [s.name for s in read_studies(tmp_path, problems=problems)] == ["good"]
    (problem,) = problems
    assert problem.startswith(str(path))
    assert says in problem


@pytest.mark.parametrize("text", ["", "[]", "null", '{"schema": 1, "stu', "\udcff"])
def test_a_study_that_is_torn_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "study.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecordError, match="not a readable study"):
        read_study(path)


def test_a_study_is_read_once_though_two_roots_hold_it(tmp_path):
    write_study(tmp_path / "a", [{}])
    assert len(read_studies(tmp_path, tmp_path / "a", problems=[])) == 1


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_study_says_what_it_was_for(tmp_path, kind):
    assert read_study(write_study(tmp_path, [{}], kind=kind)).kind == kind


@pytest.mark.parametrize(("seeds", "kind"), [([1, 1], "search"), ([1, 2], "grid")])
def test_a_study_of_an_older_version_was_a_grid_where_it_varied_the_seed(tmp_path, seeds, kind):
    study = read_study(write_study(tmp_path, [{"params": {"seed": s, "l1": 0.1 * s}} for s in seeds]))
    assert (study.kind, study.design, study.looks) == (kind, None, [])


def test_design_and_looks_are_read_as_they_were_written(tmp_path):
    design = design_of("test_accuracy", [3, 5], [{"norm": "bn", "l1": 0}, {"norm": "gbn", "l1": 0.001}])
    arm = {"params": design["arms"][0], "n_seeds": 2, "n_diverged": 1, "n_failed": 0}
    undecided = {"decision": "undecided", "estimate": 0.25, "ci_low": -0.5, "ci_high": 1.0}
    unknown = {"decision": "worse by divergence", "estimate": None, "ci_low": None, "ci_high": None}
    looks = [{"seeds": 3, "arms": [arm | undecided]}, {"seeds": 5, "arms": [arm | unknown]}]
    write_record(tmp_path, new_study("it", ["maximize"], [], {}, None, "until_verdict", (design, looks)))
    study = read_study(tmp_path / "study.json")
    assert study.design == StudyDesign(**{**design, "looks": (3, 5)})
    assert study.looks[0] == Look(3, [ArmLook(**arm, **undecided)])
    assert study.looks[1].arms[0].decision == "worse by divergence"
    assert math.isnan(study.looks[1].arms[0].estimate)


@given(st.lists(st.tuples(st.integers(), st.floats()), max_size=3), st.dictionaries(st.text(), ANYTHING, max_size=2))
def test_whatever_trials_report_and_note_is_read_back(reports, notes):
    trial = {"number": 0, "state": "failed", "params": notes, "values": None, "steps": reports, "directory": None}
    trial |= {"message": "\ud800" * 200_000, "attributes": notes | {"deep": deep(40), "large": 10**5000}}
    with tempfile.TemporaryDirectory() as folder:
        write_record(Path(folder), new_study("it", ["minimize"], [trial], {}, None))
        assert len(read_study(Path(folder) / "study.json").trials) == 1


def test_a_study_whose_reports_are_too_many_keeps_the_last_of_each_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "MAX_STUDY", 1_000)
    trial = {"number": 0, "state": "pruned", "params": {}, "values": None, "directory": None, "message": None}
    write_record(tmp_path, new_study("it", ["minimize"], [trial | {"steps": [(n, 0.5) for n in range(99)]}], {}, None))
    assert json.loads((tmp_path / "study.json").read_text())["trials"][0]["steps"] == [[98, 0.5]]
