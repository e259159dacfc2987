import itertools
import math
from pathlib import Path

import pytest
from scipy.stats import binomtest, ttest_rel
from trees import write_arms, write_predictions, write_run

from reg_sweep.comparison.arms import ArmError, Table, make_tables, result
from reg_sweep.records import RecordError, read_run, read_runs


def tables(root: Path, **options) -> list[Table]:
    return make_tables([result(run) for run in read_runs(root)], **options)


def arm(table: Table, label: str):
    return next(a for a in table.arms if a.label == label)


def test_differences_are_paired_by_seed_and_agree_with_scipy(tmp_path):
    a, b = [0.93, 0.95, 0.92, 0.96], [0.90, 0.94, 0.91, 0.91]
    write_arms(tmp_path, {("bn", 0, 0): b, ("bn", 0.001, 0): a})
    (table,) = tables(tmp_path)
    contrast = arm(table, "bn · L1 0.001").contrast
    expected = ttest_rel(a, b)
    assert contrast.difference.p == pytest.approx(expected.pvalue)
    assert contrast.difference.ci_low == pytest.approx(expected.confidence_interval().low)
    assert contrast.p_adjusted == contrast.difference.p  # one comparison needs no correction


def test_holm_corrects_over_all_arms_of_the_table(tmp_path):
    base = [0.90, 0.91, 0.92]
    write_arms(
        tmp_path,
        {("bn", 0, 0): base, ("bn", 0.001, 0): [0.95, 0.97, 0.96], ("bn", 0.01, 0): [0.91, 0.9, 0.93]},
    )
    (table,) = tables(tmp_path)
    p = sorted(a.contrast.difference.p for a in table.arms if a.contrast)
    adjusted = sorted(a.contrast.p_adjusted for a in table.arms if a.contrast)
    assert adjusted == pytest.approx([2 * p[0], max(2 * p[0], p[1])])


def test_unequal_seeds_are_paired_on_those_in_common_and_the_table_says_so(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.90, 0.91, 0.92], ("gbn", 0, 0): [0.93, 0.95]})
    (table,) = tables(tmp_path, baseline="bn")
    assert arm(table, "gbn").contrast.n_seeds == 2
    assert arm(table, "gbn").contrast.baseline_mean == pytest.approx(0.905)
    assert any("paired on the seeds that both have" in note for note in table.notes)


def test_arms_without_a_seed_in_common_are_not_compared(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, l1=0.1)
    (table,) = tables(tmp_path)
    assert all(a.contrast is None for a in table.arms)


def test_one_seed_gets_mcnemars_test_and_its_caveat(tmp_path):
    write_run(tmp_path / "a", accuracy=0.90, n_wrong=5)
    write_run(tmp_path / "b", l1=0.001, accuracy=0.70, n_wrong=15)
    (table,) = tables(tmp_path)
    contrast = arm(table, "bn · L1 0.001").contrast
    assert contrast.by_image
    assert contrast.difference.p == pytest.approx(binomtest(0, 10).pvalue)
    assert contrast.verdict == "worse"
    assert any("two trained models, not two methods" in note for note in table.notes)


def test_predictions_of_another_size_cost_the_test_and_not_the_report(tmp_path):
    write_run(tmp_path / "a")
    write_predictions(write_run(tmp_path / "b", l1=0.001), 3, n_test=7)
    problems: list[str] = []
    (table,) = tables(tmp_path, problems=problems)
    contrast = arm(table, "bn · L1 0.001").contrast
    assert not contrast.by_image
    assert math.isnan(contrast.p_adjusted)
    assert contrast.verdict == "no difference shown"
    assert "predictions.npz" in problems[0]
    assert "(50,)" in problems[0]


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"fingerprint": "other"}},
        {"data": {"n_test": 20}},
        {"data": {"n_train": 1000}},
        {"data": {"n_val": 0}},
        {"label_noise": 0.2},
    ],
)
def test_runs_that_saw_different_data_never_share_a_table(tmp_path, other):
    for l1 in (0.0, 0.1):
        write_run(tmp_path / f"a{l1}", l1=l1)
        write_run(tmp_path / f"b{l1}", l1=l1, accuracy=0.8, **other)
    found = tables(tmp_path)
    assert [[a.label for a in t.arms] for t in found] == [["bn", "bn · L1 0.1"]] * 2
    assert found[0].data != found[1].data
    assert found[0].label != found[1].label
    for t in found:
        assert {r.data for a in t.arms for r in a.replicates} == {t.data}


def test_runs_of_different_lengths_are_arms_of_one_table(tmp_path):
    write_run(tmp_path / "a", n_epochs=2)
    write_run(tmp_path / "b", n_epochs=3)
    (table,) = tables(tmp_path)
    assert {a.label for a in table.arms} == {"bn · epochs 2", "bn · epochs 3"}


def test_records_that_do_not_count_their_train_images_have_a_table_of_their_own(tmp_path):
    write_run(tmp_path / "a")
    uncounted = read_run(write_run(tmp_path / "b", l1=0.1))
    del uncounted.record["data"]["n_train"]
    del uncounted.record["config"]["data"]["label_noise"]
    found = make_tables([result(read_run(tmp_path / "a")), result(uncounted)])
    assert [t.label for t in found] == ["digits, 100 train images", "digits, train images not counted"]


def test_a_baseline_is_found_in_every_table_that_has_it(tmp_path):
    for n_train in (100, 1000):
        write_arms(tmp_path / str(n_train), {("bn", 0, 0): [0.9], ("bn", 0.1, 0): [0.8]}, data={"n_train": n_train})
    found = tables(tmp_path, baseline="l1=0.1")
    assert [t.baseline.label for t in found] == ["bn · L1 0.1"] * 2
    assert all(t.is_baseline_named for t in found)


def test_the_best_arm_is_chosen_on_val_and_judged_on_test(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", seed=seed, accuracy=0.95, val_accuracy=0.90)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, accuracy=0.90, val_accuracy=0.92)
    (table,) = tables(tmp_path)
    assert table.selected_on == "val"
    assert table.best.label == "bn · L1 0.1"
    assert table.best.contrast.difference.mean == pytest.approx(-0.05)


def test_without_val_the_best_arm_is_chosen_on_test_and_the_table_says_so(tmp_path):
    write_run(tmp_path / "a", accuracy=0.95, data={"n_val": 0})
    write_run(tmp_path / "b", l1=0.1, accuracy=0.90, data={"n_val": 0})
    (table,) = tables(tmp_path)
    assert (table.selected_on, table.best.label) == ("test", "bn")
    assert any(note.startswith("Chosen on test") for note in table.notes)


def test_an_arm_with_a_diverged_run_is_never_best_and_the_table_says_so(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.9, 0.9], ("bn", 0.1, 0): [0.99, 0.99]})
    write_run(tmp_path / "x", l1=0.1, seed=3, status="diverged", n_epochs=3)
    (table,) = tables(tmp_path)
    assert table.best.label == "bn"
    assert any("diverged" in note for note in table.notes)


def test_the_best_test_epoch_is_never_what_arms_are_judged_by(tmp_path):
    run = write_run(tmp_path / "a", accuracy=0.9, n_epochs=3)
    lines = (run / "metrics.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[7] = "0.999"
    (run / "metrics.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    (table,) = tables(tmp_path)
    assert table.arms[0].estimates["test_accuracy"].mean == pytest.approx(0.9)
    assert table.arms[0].best_test == pytest.approx(0.999)


def test_a_complete_run_without_a_finite_metric_is_left_out_and_named(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad", l1=0.1, accuracy=math.nan, predictions=False)
    problems: list[str] = []
    (table,) = tables(tmp_path, problems=problems)
    assert [len(a.replicates) for a in table.arms] == [1, 0]
    assert "bad" in problems[0]


def test_a_repeated_seed_counts_once(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    (table,) = tables(tmp_path)
    assert len(table.arms[0].replicates) == 1
    assert table.notes[0] == "bn: 1 run repeats a seed; the one that ended last counts."


def test_a_record_that_lacks_a_setting_is_an_error_that_names_it(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    del run.record["config"]["l1"]
    with pytest.raises(RecordError, match="l1"):
        result(run)


class TestBaseline:
    @pytest.fixture
    def tree(self, tmp_path):
        write_arms(tmp_path, {("bn", 0, 0): [0.9], ("bn", 0.001, 0): [0.8], ("gbn", 0, 0): [0.95]})
        return tmp_path

    def test_is_the_plain_arm_with_the_commonest_norm_unless_asked(self, tree):
        (table,) = tables(tree)
        assert table.baseline.label == "bn"

    @pytest.mark.parametrize(
        ("settings", "label"),
        [
            ([{"l1": 0.1}, {"l1": 0.001, "l2": 0.01}, {"norm": "gbn", "l1": 0.001}], "gbn · L1 0.001"),
            ([{"norm": "gbn"}, {"norm": "bn"}, {"norm": "bn", "l1": 0.1}], "bn"),
            ([{"norm": "gbn"}, {"norm": "bn"}, {"norm": "gbn", "l1": 0.1}], "gbn"),
            ([{"n_epochs": 3}, {"n_epochs": 2}, {"n_epochs": 4}], "bn · epochs 2"),
        ],
        ids=["weakest penalty", "a fixed order of norms", "the commonest norm", "its name"],
    )
    def test_does_not_depend_on_results(self, tmp_path, settings, label):
        for n, scores in enumerate(itertools.permutations([0.7, 0.8, 0.9])):
            for i, (arm_settings, accuracy) in enumerate(zip(settings, scores, strict=True)):
                write_run(tmp_path / str(n) / str(i), accuracy=accuracy, **arm_settings)
            (table,) = tables(tmp_path / str(n))
            assert table.baseline.label == label

    @pytest.mark.parametrize("name", ["gbn", "GBN", "norm=gbn", "norm=gbn,l1=0,l2=0", "norm.name=gbn,l1=0.0"])
    def test_is_named_by_label_or_by_settings(self, tree, name):
        (table,) = tables(tree, baseline=name)
        assert table.baseline.label == "gbn"

    @pytest.mark.parametrize("name", ["bn · L1 0.001", "bn L1 0.001", "l1=1e-3"])
    def test_needs_no_special_characters(self, tree, name):
        (table,) = tables(tree, baseline=name)
        assert table.baseline.label == "bn · L1 0.001"

    @pytest.mark.parametrize("name", ["ln", "norm=ln", "l1=nonsense", "norm="])
    def test_that_is_no_arm_is_an_error_that_lists_the_arms(self, tree, name):
        with pytest.raises(ArmError, match=r"bn · L1 0\.001"):
            tables(tree, baseline=name)

    def test_that_is_several_arms_is_an_error(self, tree):
        with pytest.raises(ArmError, match="2 have"):
            tables(tree, baseline="norm=bn")


def test_an_arm_that_was_only_pruned_is_not_listed_and_any_other_is(tmp_path):
    for i, status in enumerate(("complete", "pruned", "failed", "running", "diverged")):
        write_run(tmp_path / status, l1=i / 10, status=status)
    write_run(tmp_path / "again", l1=0.1, seed=2, status="pruned")
    write_run(tmp_path / "both", l1=0.2, seed=2, status="pruned")
    (table,) = tables(tmp_path)
    assert {a.config["l1"] for a in table.arms} - {a.config["l1"] for a in table.listed} == {0.1}
