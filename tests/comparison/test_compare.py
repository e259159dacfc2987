import itertools
import shlex

import numpy as np
import pytest
from trees import arm_of, comparisons, write_arms, write_run

from reg_sweep.comparison.compare import make_comparisons
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.question import ArmError
from reg_sweep.comparison.results import result
from reg_sweep.report.account import compared
from reg_sweep.runs.reading import read_run


def test_moderated_variances_are_the_default(tmp_path):
    arms = {("bn", 0.001 * i, 0): [0.9 + 0.01 * i, 0.91, 0.92 + 0.001 * i**2] for i in range(4)}
    write_arms(tmp_path, arms)
    by_default, moderated, plain = (
        arm_of(comparisons(tmp_path, **options)[0], "bn · L1 0.001").contrast
        for options in ({}, {"variance": "moderated"}, {"variance": "plain"})
    )
    assert by_default.difference == moderated.difference
    assert moderated.alone.p != plain.alone.p


def test_an_arm_that_lacks_seeds_is_told_apart_and_never_best(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.90, 0.91, 0.92], ("gbn", 0, 0): [0.93, 0.95]})
    (comparison,) = comparisons(tmp_path, baseline="bn")
    arm = arm_of(comparison, "gbn")
    assert arm.contrast.pairs == 2
    assert arm.contrast.baseline_mean == pytest.approx(0.905)
    assert (arm.verdict, arm.missing, comparison.best.label) == ("not ranked", (3,), "bn")
    assert any("gbn (2 of 3 seeds)" in note for note in notes(comparison))


def test_the_best_arm_is_ahead_in_pairs_and_not_by_easier_seeds(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.90, 0.80], ("gbn", 0, 0): [0.91, 0.81], ("ln", 0, 0): [0.89, 0.79]})
    for seed in range(3, 9):  # seeds that the baseline never had
        write_run(tmp_path / f"more-{seed}", norm="ln", seed=seed, accuracy=0.99)
    (comparison,) = comparisons(tmp_path, baseline="bn")
    assert comparison.best.label == "gbn"
    assert arm_of(comparison, "ln").lead == pytest.approx(-0.01)


def test_an_unpaired_lead_is_over_all_runs_however_few_seeds_are_common(tmp_path):
    for i, (norm, accuracy) in enumerate([("bn", 0.80), ("bn", 0.90), ("gbn", 0.89), ("gbn", 0.99)]):
        write_run(tmp_path / str(i), norm=norm, seed=(1, 2, 2, 3)[i], accuracy=accuracy)
    (unpaired,) = comparisons(tmp_path, baseline="bn", pairing="none")
    assert arm_of(unpaired, "gbn").lead == pytest.approx(0.09)
    assert unpaired.best.label == "gbn"


def test_trials_are_no_arms_nor_replicates_of_the_arm_that_they_chose(tmp_path):
    write_arms(tmp_path / "final", {("bn", 0, 0): [0.9, 0.91], ("bn", 0.1, 0): [0.92, 0.93]})
    trials = [write_run(tmp_path / "search" / str(n), l1=0.1 * n, seed=7, accuracy=0.99) for n in (1, 2, 3)]
    (comparison,) = comparisons(tmp_path, trials=trials)
    assert [a.label for a in comparison.arms] == ["bn · L1 0.1", "bn"]
    assert comparison.best.seeds == [1, 2]
    assert len(comparison.trials) == 3
    assert comparison.n_by_status.total() == 4


def test_with_best_val_the_val_loss_chooses_epoch_and_arm(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", seed=seed, val_accuracy=0.95, loss=0.3)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, val_accuracy=0.90, loss=0.2 + 0.01 * seed)
    assert comparisons(tmp_path)[0].best.label == "bn"
    (comparison,) = comparisons(tmp_path, epoch="best_val")
    assert comparison.selector.name == "val_loss"
    assert comparison.best.label == "bn · L1 0.1"


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
    assert len({t.label for t in found}) == 2
    assert [{r.data for a in t.arms for r in a.replicates} for t in found] == [{t.data} for t in found]
    assert found[0].data != found[1].data


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
    assert any(note.startswith("Chosen on test") for note in notes(comparison))


def test_an_arm_with_a_diverged_run_is_never_best_and_the_table_says_so(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.9, 0.9], ("bn", 0.1, 0): [0.99, 0.99]})
    write_run(tmp_path / "x", l1=0.1, seed=3, status="diverged", n_epochs=3)
    (comparison,) = comparisons(tmp_path)
    assert comparison.best.label == "bn"
    assert any("bn · L1 0.1 (1 of 3 seeds)" in note for note in notes(comparison))
    assert arm_of(comparison, "bn · L1 0.1").verdict == "not ranked"


class TestBaseline:
    @pytest.fixture
    def tree(self, tmp_path):
        write_arms(tmp_path, {("bn", 0, 0): [0.9], ("bn", 0.001, 0): [0.8], ("gbn", 0, 0): [0.95]})
        return tmp_path

    def test_has_no_regularizer_of_any_kind_if_there_is_such_an_arm(self, tmp_path):
        ortho = {"ortho": {"_target_": "reg_sweep.orthogonality", "strength": 0.01}}
        others = [{"mix": "mixup"}, {"averaging": "ema"}, {"penalties": ortho}]
        for i, settings in enumerate([*others, {}]):
            write_run(tmp_path / str(i), **settings)
        (comparison,) = comparisons(tmp_path)
        assert comparison.baseline.label == "bn"
        assert "The baseline is bn: without L1 and L2. " in compared(comparison)

    @pytest.mark.parametrize(
        ("settings", "label"),
        [
            ([{"l1": 0.1}, {"l1": 0.001, "l2": 0.01}, {"norm": "gbn", "l1": 0.001}], "gbn · L1 0.001"),
            ([{"norm": "gbn"}, {"norm": "bn"}, {"norm": "bn", "l1": 0.1}], "bn"),
            ([{"norm": "gbn"}, {"norm": "bn"}, {"norm": "gbn", "l1": 0.1}], "bn"),
            ([{"norm": "gbn"}, {"norm": "none"}, {"norm": "gbn", "l1": 0.1}], "no norm"),
            ([{"norm": "gbn"}, {"norm": "gn"}, {"norm": "gn", "l1": 0.1}], "gn"),
            ([{"n_epochs": 3}, {"n_epochs": 2}, {"n_epochs": 4}], "bn · epochs 2"),
        ],
        ids=["weakest penalty", "a fixed order of norms", "bn", "no norm", "the commonest norm", "its name"],
    )
    def test_does_not_depend_on_results(self, tmp_path, settings, label):
        for n, scores in enumerate(itertools.permutations([0.7, 0.8, 0.9])):
            for i, (arm_settings, accuracy) in enumerate(zip(settings, scores, strict=True)):
                write_run(tmp_path / str(n) / str(i), accuracy=accuracy, **arm_settings)
            (comparison,) = comparisons(tmp_path / str(n), together=True)
            assert comparison.baseline.label == label

    @pytest.mark.parametrize(
        ("label", "names"),
        [
            ("gbn", ["gbn", "GBN", "norm=gbn", "norm=gbn,l1=0,l2=0", "norm.name=gbn,l1=0.0"]),
            ("bn · L1 0.001", ["bn · L1 0.001", "bn L1 0.001", "l1=1e-3"]),
        ],
    )
    def test_is_named_by_label_or_by_settings_without_special_characters(self, tree, label, names):
        assert {comparisons(tree, baseline=name)[0].baseline.label for name in names} == {label}

    @pytest.mark.parametrize("name", ["ln", "norm=ln", "l1=nonsense", "norm="])
    def test_that_is_no_arm_is_an_error_that_lists_the_arms(self, tree, name):
        with pytest.raises(ArmError, match=r"'bn · L1 0\.001'") as refused:
            comparisons(tree, baseline=name)
        for label in shlex.split(str(refused.value).split("use one of ")[1].replace(",", " ")):  # as they are typed
            assert comparisons(tree, baseline=label)[0].baseline.label == label

    def test_that_is_none_of_many_or_several_says_how_many_there_are(self, tree, tmp_path):
        with pytest.raises(ArmError, match="2 have"):
            comparisons(tree, baseline="norm=bn")
        for i in range(20):
            write_run(tmp_path / f"more-{i}", norm="ln", l1=i / 100, predictions=False)
        with pytest.raises(ArmError, match="or 3 more: the page lists them"):
            comparisons(tmp_path, baseline="gn")


def test_an_arm_that_was_only_pruned_is_not_listed_and_any_other_is(tmp_path):
    for i, status in enumerate(("complete", "pruned", "failed", "running", "diverged")):
        write_run(tmp_path / status, l1=i / 10, status=status)
    write_run(tmp_path / "again", l1=0.1, seed=2, status="pruned")
    write_run(tmp_path / "both", l1=0.2, seed=2, status="pruned")
    (comparison,) = comparisons(tmp_path)
    assert {a.config["l1"] for a in comparison.arms} - {a.config["l1"] for a in comparison.listed} == {0.1}


def test_the_lead_of_the_best_is_shrunk_for_having_been_chosen(tmp_path):
    rng = np.random.default_rng(1)
    arms = {("bn", 0.01 * i, 0): (0.9 + 0.01 * rng.standard_normal(4)).tolist() for i in range(6)}
    write_arms(tmp_path, arms, predictions=False)
    (comparison,) = comparisons(tmp_path)
    found, shown = comparison.shrunken, comparison.best.contrast.difference
    assert found.n_candidates == 5
    assert found.corrected < found.estimate
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((shown.mean, shown.ci_low, shown.ci_high))


def test_arms_of_another_norm_with_the_same_layers_are_told_to_be_one_network(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.9, 0.91], ("gbn", 0, 0): [0.9, 0.91], ("gn", 0, 0): [0.8, 0.82]})
    (comparison,) = comparisons(tmp_path)
    assert not any("ignores norm" in note for note in notes(comparison))
    for path in tmp_path.glob("*/run.json"):
        path.write_text(path.read_text().replace("gbn conv", "bn conv"))
    (comparison,) = comparisons(tmp_path)
    (told,) = [note for note in notes(comparison) if "ignores norm" in note]
    write_arms(tmp_path / "more", {("gn", 0.1, 0): [0.8, 0.82], ("ln", 0.1, 0): [0.7, 0.72]})
    for path in tmp_path.glob("more/*/run.json"):
        path.write_text(path.read_text().replace("ln conv", "gn conv"))  # a layer norm is a group norm of one group
    (comparison,) = comparisons(tmp_path)
    assert [note for note in notes(comparison) if "ignores norm" in note] == [told]
    write_arms(tmp_path / "whole", {("gbn", 0.2, 0): [0.8, 0.82]}, batch_size=32)
    (comparison,) = comparisons(tmp_path)
    assert [note.split(",")[0] for note in notes(comparison) if "ghost batch" in note] == [
        "One ghost batch is the whole batch in gbn · L1 0.2 · batch size 32"
    ]
    assert {"bn", "gbn"} == set(told.split(": ")[1].split(" have")[0].split(" and "))


def test_arms_with_code_of_their_own_are_told_that_no_command_is_composed(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.9], ("gbn", 0, 0): [0.91]})
    (comparison,) = comparisons(tmp_path)
    assert not any("no command can be composed" in note for note in notes(comparison))
    for path in tmp_path.glob("*/run.json"):
        path.write_text(path.read_text().replace("reg_sweep.SqueezeExpand", "mine.Network"))
    (comparison,) = comparisons(tmp_path)
    (told,) = [note for note in notes(comparison) if "no command can be composed" in note]
    assert "another seed=" in told


def test_a_far_noisier_arm_that_widens_the_others_intervals_is_named_where_variances_are_moderated(tmp_path):
    quiet = [0.950, 0.952, 0.949, 0.951, 0.953, 0.950]
    equal = [q + 0.001 * (-1) ** i for i, q in enumerate(quiet)]
    write_arms(tmp_path, {("bn", 0, 0): quiet, ("gbn", 0, 0): equal, ("none", 0, 0): [0.1, 0.9, 0.1, 0.5, 0.1, 0.9]})

    def said(**options) -> list[str]:
        (comparison,) = comparisons(tmp_path, baseline="bn", **options)
        return [note for note in notes(comparison) if "spread" in note]

    (note,) = said()
    assert "of no norm spread" in note
    assert "as those of gbn, and" in note
    assert "set --variance plain before" in note
    assert not said(variance="plain")
    assert not said(pairing="none")
