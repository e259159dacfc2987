import itertools

import pytest
from trees import arm_of, comparisons, write_arms, write_run

from reg_sweep.comparison.results import result
from reg_sweep.comparison.tables import ArmError, make_comparisons
from reg_sweep.records import read_run


def test_holm_corrects_over_all_arms_of_the_table(tmp_path):
    base = [0.90, 0.91, 0.92]
    write_arms(
        tmp_path,
        {("bn", 0, 0): base, ("bn", 0.001, 0): [0.95, 0.97, 0.96], ("bn", 0.01, 0): [0.91, 0.9, 0.93]},
    )
    (comparison,) = comparisons(tmp_path)
    p = sorted(a.contrast.difference.p for a in comparison.arms if a.contrast)
    adjusted = sorted(a.contrast.p_adjusted for a in comparison.arms if a.contrast)
    assert adjusted == pytest.approx([2 * p[0], max(2 * p[0], p[1])])


def test_unequal_seeds_are_paired_on_those_in_common_and_the_table_says_so(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.90, 0.91, 0.92], ("gbn", 0, 0): [0.93, 0.95]})
    (comparison,) = comparisons(tmp_path, baseline="bn")
    assert arm_of(comparison, "gbn").contrast.n_seeds == 2
    assert arm_of(comparison, "gbn").contrast.baseline_mean == pytest.approx(0.905)
    assert any("paired on the seeds that both have" in note for note in comparison.notes)


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
    found = comparisons(tmp_path)
    assert [[a.label for a in t.arms] for t in found] == [["bn", "bn · L1 0.1"]] * 2
    assert found[0].data != found[1].data
    assert found[0].label != found[1].label
    for t in found:
        assert {r.data for a in t.arms for r in a.replicates} == {t.data}


def test_runs_of_different_lengths_are_arms_of_one_table(tmp_path):
    write_run(tmp_path / "a", n_epochs=2)
    write_run(tmp_path / "b", n_epochs=3)
    (comparison,) = comparisons(tmp_path)
    assert {a.label for a in comparison.arms} == {"bn · epochs 2", "bn · epochs 3"}


def test_records_that_do_not_count_their_train_images_have_a_table_of_their_own(tmp_path):
    write_run(tmp_path / "a")
    uncounted = read_run(write_run(tmp_path / "b", l1=0.1))
    del uncounted.record["data"]["n_train"]
    del uncounted.record["config"]["data"]["label_noise"]
    found = make_comparisons([result(read_run(tmp_path / "a")), result(uncounted)])
    assert [t.label for t in found] == ["digits, 100 train images", "digits, train images not counted"]


def test_a_baseline_is_found_in_every_table_that_has_it(tmp_path):
    for n_train in (100, 1000):
        write_arms(tmp_path / str(n_train), {("bn", 0, 0): [0.9], ("bn", 0.1, 0): [0.8]}, data={"n_train": n_train})
    found = comparisons(tmp_path, baseline="l1=0.1")
    assert [t.baseline.label for t in found] == ["bn · L1 0.1"] * 2
    assert all(t.is_baseline_named for t in found)


def test_the_best_arm_is_chosen_on_val_and_judged_on_test(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", seed=seed, accuracy=0.95, val_accuracy=0.90)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, accuracy=0.90, val_accuracy=0.92)
    (comparison,) = comparisons(tmp_path)
    assert comparison.selected_on == "val"
    assert comparison.best.label == "bn · L1 0.1"
    assert comparison.best.contrast.difference.mean == pytest.approx(-0.05)


def test_without_val_the_best_arm_is_chosen_on_test_and_the_table_says_so(tmp_path):
    write_run(tmp_path / "a", accuracy=0.95, data={"n_val": 0})
    write_run(tmp_path / "b", l1=0.1, accuracy=0.90, data={"n_val": 0})
    (comparison,) = comparisons(tmp_path)
    assert (comparison.selected_on, comparison.best.label) == ("test", "bn")
    assert any(note.startswith("Chosen on test") for note in comparison.notes)


def test_an_arm_with_a_diverged_run_is_never_best_and_the_table_says_so(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.9, 0.9], ("bn", 0.1, 0): [0.99, 0.99]})
    write_run(tmp_path / "x", l1=0.1, seed=3, status="diverged", n_epochs=3)
    (comparison,) = comparisons(tmp_path)
    assert comparison.best.label == "bn"
    assert any("diverged" in note for note in comparison.notes)


class TestBaseline:
    @pytest.fixture
    def tree(self, tmp_path):
        write_arms(tmp_path, {("bn", 0, 0): [0.9], ("bn", 0.001, 0): [0.8], ("gbn", 0, 0): [0.95]})
        return tmp_path

    def test_is_the_plain_arm_with_the_commonest_norm_unless_asked(self, tree):
        (comparison,) = comparisons(tree)
        assert comparison.baseline.label == "bn"

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
            (comparison,) = comparisons(tmp_path / str(n))
            assert comparison.baseline.label == label

    @pytest.mark.parametrize("name", ["gbn", "GBN", "norm=gbn", "norm=gbn,l1=0,l2=0", "norm.name=gbn,l1=0.0"])
    def test_is_named_by_label_or_by_settings(self, tree, name):
        (comparison,) = comparisons(tree, baseline=name)
        assert comparison.baseline.label == "gbn"

    @pytest.mark.parametrize("name", ["bn · L1 0.001", "bn L1 0.001", "l1=1e-3"])
    def test_needs_no_special_characters(self, tree, name):
        (comparison,) = comparisons(tree, baseline=name)
        assert comparison.baseline.label == "bn · L1 0.001"

    @pytest.mark.parametrize("name", ["ln", "norm=ln", "l1=nonsense", "norm="])
    def test_that_is_no_arm_is_an_error_that_lists_the_arms(self, tree, name):
        with pytest.raises(ArmError, match=r"bn · L1 0\.001"):
            comparisons(tree, baseline=name)

    def test_that_is_several_arms_is_an_error(self, tree):
        with pytest.raises(ArmError, match="2 have"):
            comparisons(tree, baseline="norm=bn")


def test_an_arm_that_was_only_pruned_is_not_listed_and_any_other_is(tmp_path):
    for i, status in enumerate(("complete", "pruned", "failed", "running", "diverged")):
        write_run(tmp_path / status, l1=i / 10, status=status)
    write_run(tmp_path / "again", l1=0.1, seed=2, status="pruned")
    write_run(tmp_path / "both", l1=0.2, seed=2, status="pruned")
    (comparison,) = comparisons(tmp_path)
    assert {a.config["l1"] for a in comparison.arms} - {a.config["l1"] for a in comparison.listed} == {0.1}
