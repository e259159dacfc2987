"""Which runs share a table: a study's, and the others' by data, model, epochs and schedule; never by folder alone."""

import pytest
from trees import comparisons, edit_record, write_arms, write_run, write_study
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.comparison.commands import seeds_to_train, sweep_name
from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.grouping import make_tables
from reg_sweep.comparison.results import result
from reg_sweep.comparison.sentences import verdict
from reg_sweep.comparison.study_runs import explored, match_runs
from reg_sweep.config.schema import ScheduleConfig
from reg_sweep.runs.reading import read_runs
from reg_sweep.runs.study import read_studies

BN, L1, GBN, LN = ("bn", 0.0, 0.0), ("bn", 0.001, 0.0), ("gbn", 0.0, 0.0), ("ln", 0.0, 0.0)
THREE = [0.90, 0.91, 0.92]


def tables(root, **options):
    """The tables of a folder: their labels, and the labels of their arms' folders."""
    results = [result(run) for run in read_runs(root)]
    studies = [match_runs(n, study, results) for n, study in enumerate(read_studies(root, problems=[]), 1)]
    trials = {str(r.path) for r in explored(results, studies)}
    return make_tables(results, studies, trials, **{"together": False} | options)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"n_epochs": 5}, "digits, 5 epochs"),
        ({"schedule": ScheduleConfig("cosine")}, "digits, cosine"),
        ({"model": {"_target_": "reg_sweep.Mlp"}}, "digits, Mlp"),
        ({"model": {"_target_": "reg_sweep.SqueezeExpand", "channels": 4, "dropout": 0.05}}, "digits, channels 4"),
    ],
)
def test_runs_of_another_protocol_have_a_table_of_their_own_unless_all_are_asked_for(tmp_path, other, name):
    write_arms(tmp_path / "a", {BN: THREE, L1: THREE})
    write_arms(tmp_path / "b", {BN: THREE, L1: THREE}, **other)
    found = comparisons(tmp_path)
    assert [len(c.arms) for c in found] == [2, 2]
    assert name in [c.label for c in found]
    (joined,) = comparisons(tmp_path, together=True)
    assert len(joined.arms) == 4


def test_a_grid_keeps_its_verdict_whatever_else_was_trained_of_its_baseline(tmp_path):
    write_arms(tmp_path / "grid", {BN: [0.8, 0.81, 0.8], GBN: [0.9, 0.91, 0.905]})
    for seed in (4, 5, 6, 7):
        write_run(tmp_path / f"single-{seed}", seed=seed)
    grid, single = sorted(comparisons(tmp_path), key=lambda c: -len(c.arms))
    assert verdict(grid)[0].startswith("gbn is better than the baseline, bn.")
    assert (grid.label.split(", ")[-1], single.baseline.seeds) == ("grid", [4, 5, 6, 7])


@pytest.mark.parametrize(
    ("elsewhere", "seeds"),
    [({BN: [0.9], GBN: [0.9]}, {"bn": [1, 2, 3, 4], "gbn": [1, 2, 3, 4]}), ({LN: THREE}, {"ln": [4, 5, 6]})],
    ids=["more seeds of all its arms", "another arm"],
)
def test_a_grid_that_is_continued_in_another_folder_is_one_table(tmp_path, elsewhere, seeds):
    write_arms(tmp_path / "grid", {BN: THREE, GBN: THREE})
    for arm, scores_of in elsewhere.items():
        for n, score in enumerate(scores_of, 4):
            write_run(tmp_path / "more" / f"{arm[0]}{n}", norm=arm[0], seed=n, accuracy=score)
    (comparison,) = comparisons(tmp_path)
    assert {arm.label: arm.seeds for arm in comparison.arms}.items() >= seeds.items()


def test_a_failed_run_splits_no_table(tmp_path):
    write_arms(tmp_path / "a", {BN: THREE, GBN: THREE})
    write_run(tmp_path / "b" / "0", seed=4)
    write_run(tmp_path / "b" / "1", norm="gbn", seed=4, status="failed")
    (comparison,) = comparisons(tmp_path)
    assert comparison.baseline.seeds == [1, 2, 3, 4]


def test_each_study_is_a_table_and_the_newest_comes_first(tmp_path):
    write_until(tmp_path / "until_verdict", scores(), ALL_LOOKS)
    for n, l1 in enumerate((0.1, 0.01)):
        write_run(tmp_path / "search" / str(n), l1=l1)
        for seed in (1, 2):
            write_run(tmp_path / "five" / f"{n}{seed}", l1=l1, seed=seed)
    write_study(tmp_path / "search", [{"params": {"l1": 0.1}}, {"params": {"l1": 0.01}}])
    cells = [(n, l1, seed) for n, l1 in enumerate((0.1, 0.01)) for seed in (1, 2)]
    grid = [{"params": {"l1": l1, "seed": seed}, "directory": f"{n}{seed}"} for n, l1, seed in cells]
    write_study(tmp_path / "five", grid, kind="grid", replicates=["seed"])
    edit_record(write_run(tmp_path / "late"), started="2026-02-02T00:00:00+00:00", ended="2026-02-02T00:00:00+00:00")
    found = tables(tmp_path)
    assert {t.label: (len(t.runs), len(t.trials)) for t in found} == {
        "digits": (1, 0), "five, digits": (4, 0), "search, digits": (0, 2), "until_verdict, digits": (24, 0),
    }  # fmt: skip
    assert found[0].label == "digits"


@pytest.mark.parametrize("folders", [True, False], ids=["a grid's", "single runs'"])
def test_the_advised_seeds_join_the_runs_that_they_were_advised_for(tmp_path, folders):
    for n, norm in enumerate(("bn", "gbn")):
        path = tmp_path / "grid" / str(n) if folders else tmp_path / norm
        write_run(path, norm=norm, name="grid" if folders else norm)
    (before,) = comparisons(tmp_path)
    name = sweep_name(before)
    (command,) = seeds_to_train(before)
    assert f"seed=2,3 name={name} -m" in command
    assert name == ("grid" if folders else "more_seeds")
    for n, (norm, seed) in enumerate((norm, seed) for norm in ("bn", "gbn") for seed in (2, 3)):
        write_run(tmp_path / name / str(n + 2), norm=norm, seed=seed)
    (after,) = comparisons(tmp_path)
    assert {tuple(arm.seeds) for arm in after.arms} == {(1, 2, 3)}


def test_seeds_that_were_never_tried_are_advised_where_no_arm_is_ranked(tmp_path):
    write_arms(tmp_path / "all", {BN: THREE})
    write_arms(tmp_path / "all2", {GBN: THREE[:2]})
    (comparison,) = comparisons(tmp_path)
    finding, evidence = verdict(comparison)
    assert finding == "No arm is ranked against the baseline, bn: none has all of its 3 seeds."
    assert "Some seeds are missing or failed: train these seeds." in conclusions(comparison).paragraphs[-1].text
    assert "On the 2 seeds in common the largest gain is gbn (0.00 points), not tested." in evidence
    (command,) = seeds_to_train(comparison)
    assert "norm=gbn l1=0 l2=0 epochs=3 seed=3 name=" in command
    write_arms(tmp_path / "all3", {LN: [0.1]})
    (comparison,) = comparisons(tmp_path)
    assert "is gbn (0.00 points), the largest loss ln (−80.00 points) over 1 seed, not" in verdict(comparison)[1]
