"""Verdicts of earlier reports: tested runs that get or lose seeds are exploratory, whatever the question."""

import json
import shutil

import pytest
from pages import report
from trees import arm_of, comparisons, write_run

from reg_sweep.comparison.commands import seeds_to_train
from reg_sweep.comparison.earlier import JUDGED_FILE, Earlier, read_earlier
from reg_sweep.runs.record import METRIC
from reg_sweep.stats.verdict import Verdict

BN, GBN, LN = {"norm": "bn"}, {"norm": "gbn"}, {"norm": "ln"}
LOSS = {"metric": METRIC["test_loss"]}


def train(root, arms, seeds, status="complete"):
    """Writes runs of these arms; each seed of an arm has an accuracy and a loss of its own."""
    for n, arm in enumerate(arms):
        for seed in seeds:
            noise = (7 * seed + 5 * n) % 11 / 1000
            path = root / f"{arm['norm']}-{seed}"
            write_run(path, **arm, seed=seed, accuracy=0.9 + noise, loss=0.3 - noise, status=status)


def reported(root, earlier=None, **asked):
    """The table of a folder, judged after these earlier reports, and the record of all reports."""
    earlier = Earlier([]) if earlier is None else earlier
    (table,) = comparisons(root, seen_before=earlier.reason, **asked)
    return table, earlier.with_judged([table])


def why(root, earlier, **asked):
    """Why a folder's table is exploratory now, without the time."""
    said = reported(root, earlier, **asked)[0].judgement.exploratory
    return said.partition(" (")[0].removeprefix("its arms were judged before, ") + said.partition(")")[2]


ADDED, LEFT_OUT = "at 3 seeds, and seeds were added since", "at 3 seeds, and seeds were left out since"


def first(root, arms=(BN, GBN), seeds=(1, 2, 3), **asked):
    """The record of a report of these runs."""
    train(root, arms, seeds)
    return reported(root, **asked)[1]


# ---- unpaired tables


def test_added_runs_make_an_unpaired_table_exploratory_also_if_its_arms_share_no_seed(tmp_path):
    train(tmp_path, [BN], (1, 3, 5))
    train(tmp_path, [GBN], (2, 4, 6))
    table, seen = reported(tmp_path, pairing="none")
    assert arm_of(table, "gbn").verdict is Verdict.NO_DIFFERENCE
    assert list(seen.judged[0]["arms"].values()) == [[1, 2, 3, 4, 5, 6]]
    assert why(tmp_path, seen, pairing="none") == ""
    train(tmp_path, [BN], [7])
    assert why(tmp_path, seen, pairing="none") == "at 6 seeds, and seeds were added since"


def test_runs_that_one_side_of_an_unpaired_table_gets_are_added_even_on_the_other_sides_seeds(tmp_path):
    train(tmp_path, [BN], range(1, 6))
    seen = first(tmp_path, [GBN], (1, 2, 3), pairing="none")
    assert why(tmp_path, seen, pairing="none") == ""
    train(tmp_path, [GBN], [4])
    assert why(tmp_path, seen, pairing="none") == "at 5 seeds, and seeds were added since"


def test_a_strangers_table_without_common_seeds_is_judged_once(tmp_path):
    texts = []
    for n in (4, 4, 6):
        rows = [f"{'ab'[s % 2]},{s},{0.9 + s * s % 7 / 100}" for s in range(1, 2 * n + 1)]
        (tmp_path / "it.csv").write_text("\n".join(["method,seed,acc", *rows]))
        texts.append(report(tmp_path / "it.csv", out=tmp_path / "out")[0].text)
    assert ["at 8 seeds (" in text for text in texts] == [False, False, True]


# ---- divergence


def divergent(root):
    """A baseline with eight seeds, and an arm that diverged on all but one of these, judged once."""
    train(root, [BN], range(1, 9))
    train(root, [GBN], [1])
    train(root, [GBN], range(2, 9), status="diverged")
    return reported(root)


def test_a_verdict_by_divergence_is_recorded_with_all_seeds_that_both_sides_ran(tmp_path):
    table, seen = divergent(tmp_path)
    assert arm_of(table, "gbn").verdict is Verdict.WORSE_BY_DIVERGENCE
    assert list(seen.judged[0]["arms"].values()) == [[*range(1, 9)]]
    assert why(tmp_path, seen) == ""
    train(tmp_path, [BN, GBN], [9])
    assert why(tmp_path, seen) == "at 8 seeds, and seeds were added since"


def test_a_divergence_test_that_left_the_arm_unranked_counts_and_gets_no_more_seeds(tmp_path):
    train(tmp_path, [BN], (1, 2, 3))
    train(tmp_path, [GBN], [1])
    train(tmp_path, [GBN], [2], status="diverged")
    table, seen = reported(tmp_path)
    assert arm_of(table, "gbn").verdict is Verdict.NOT_RANKED
    assert list(seen.judged[0]["arms"].values()) == [[1, 2]]
    assert seeds_to_train(table) == []
    train(tmp_path, [GBN], [3])
    assert why(tmp_path, seen) == "at 2 seeds, and seeds were added since"


def test_an_arm_that_was_not_tested_may_still_get_its_missing_seeds(tmp_path):
    train(tmp_path, [BN, LN], (1, 2, 3))
    seen = first(tmp_path, [GBN], (1, 2))
    train(tmp_path, [GBN], [3])
    assert why(tmp_path, seen) == ""
    train(tmp_path, [GBN, LN], [4])  # without the baseline's, nothing is tested on it
    assert why(tmp_path, seen) == ""


def test_no_seeds_are_advised_where_one_complete_seed_is_left_and_divergence_decided(tmp_path):
    train(tmp_path, [BN, GBN], [1])
    assert seeds_to_train(reported(tmp_path)[0])
    train(tmp_path, [BN], range(2, 9), status="diverged")
    train(tmp_path, [GBN], range(2, 9))
    table, _ = reported(tmp_path)
    assert (table.n_seeds, arm_of(table, "gbn").verdict) == (1, Verdict.BETTER_BY_DIVERGENCE)
    assert seeds_to_train(table) == []


# ---- seeds left out


@pytest.mark.parametrize(
    ("lost", "new", "said"),
    [
        ((), (), ""),
        ((), (4,), ADDED),
        ((1,), (4, 5), ADDED),
        ((1, 2), (4, 5, 6), ADDED),
        ((1,), (), LEFT_OUT),
        ((1, 2, 3), (4, 5, 6), ""),
    ],
    ids=["the same", "more", "one replaced", "all but one replaced", "a subset", "fresh seeds"],
)
def test_tested_runs_keep_their_verdict_only_if_none_is_added_or_left_out(tmp_path, lost, new, said):
    seen = first(tmp_path)
    for seed in lost:
        for norm in ("bn", "gbn"):
            shutil.rmtree(tmp_path / f"{norm}-{seed}")
    train(tmp_path, [BN, GBN], new)
    assert why(tmp_path, seen) == said


def test_the_run_of_one_arm_can_not_be_left_out_either(tmp_path):
    seen = first(tmp_path)
    shutil.rmtree(tmp_path / "bn-2")
    assert why(tmp_path, seen) == LEFT_OUT


def test_fresh_seeds_are_a_test_of_their_own_which_is_recorded_too(tmp_path):
    seen = first(tmp_path / "a")
    train(tmp_path / "b", [BN, GBN], (4, 5, 6))
    _, seen = reported(tmp_path / "b", seen)
    train(tmp_path / "b", [BN, GBN], [7])
    assert why(tmp_path / "b", seen) == ADDED
    assert why(tmp_path / "a", seen) == ""


# ---- another question


@pytest.mark.parametrize(
    "asked", [{}, LOSS, {"baseline": "gbn"}, {"epoch": "best_val"}, {"baseline": "ln"}, LOSS | {"baseline": "gbn"}]
)
def test_added_seeds_are_a_second_look_by_any_metric_and_baseline_and_the_same_runs_another_question(tmp_path, asked):
    seen = first(tmp_path, [BN, GBN, LN])
    assert why(tmp_path, seen, **asked) == ""
    train(tmp_path, [BN, GBN, LN], [4, 5])
    assert why(tmp_path, seen, **asked) == ADDED


def test_two_arms_whose_roles_are_swapped_are_the_same_pair(tmp_path):
    seen = first(tmp_path)
    assert why(tmp_path, seen, baseline="gbn") == ""
    table, _ = reported(tmp_path, seen, baseline="gbn")
    assert [said.partition(" (")[0] for said in seen.other_questions([table])] == ["baseline bn"]
    train(tmp_path, [BN, GBN], [4])
    assert why(tmp_path, seen, baseline="gbn") == ADDED


def test_the_same_runs_of_arms_with_more_seeds_than_the_first_baseline_may_be_asked_another_question(tmp_path):
    train(tmp_path, [GBN, LN], [4, 5])
    seen = first(tmp_path, [BN, GBN, LN])
    assert why(tmp_path, seen, baseline="ln") == ""


def test_an_arm_that_was_never_tested_may_be_compared_with_a_tested_one(tmp_path):
    seen = first(tmp_path)
    for seed in (1, 2, 3):
        shutil.rmtree(tmp_path / f"bn-{seed}")
    train(tmp_path, [LN], (1, 2, 3))
    assert why(tmp_path, seen, baseline="gbn") == ""


# ---- the file


@pytest.mark.parametrize("without", [["runs"], ["runs", "question"]])
def test_a_file_of_an_earlier_version_is_read_and_counts_its_seeds(tmp_path, without):
    seen = first(tmp_path / "it", [BN, GBN, LN])
    train(tmp_path / "it", [LN], [4], status="diverged")
    facts = json.loads(seen.text())
    for table in facts["judged"]:
        for key in without:
            del table[key]
    (tmp_path / JUDGED_FILE).write_text(json.dumps(facts))
    old = read_earlier([tmp_path])
    assert why(tmp_path / "it", old) == ""
    assert why(tmp_path / "it", old, **LOSS) == ""
    train(tmp_path / "it", [BN, GBN], [4])
    assert why(tmp_path / "it", old, **LOSS, baseline="gbn") == ADDED


def test_the_file_is_read_as_it_was_written_and_the_same_report_adds_nothing(tmp_path):
    seen = first(tmp_path / "it")
    (tmp_path / JUDGED_FILE).write_text(seen.text())
    read = read_earlier([tmp_path])
    assert read == seen
    assert reported(tmp_path / "it", read)[1] == seen
