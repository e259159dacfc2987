import re

import numpy as np
import pytest
from pages import BN, L1, report
from safetensors.numpy import save_file
from trees import write_arms, write_run


def test_lambdas_are_studied_where_three_of_them_differ_in_nothing_else(tmp_path):
    write_arms(tmp_path / "two", {BN: [0.8, 0.9], L1: [0.8, 0.9]})
    write_arms(tmp_path / "three", {BN: [0.8, 0.9], L1: [0.8, 0.9], ("bn", 0.01, 0): [0.7, 0.8]})
    for name in ("two", "three"):
        report(tmp_path / name, out=tmp_path / f"{name}-report", is_drawn=True)
    assert not list((tmp_path / "two-report").glob("study-*"))
    assert (tmp_path / "three-report" / "study-l1-1.svg").exists()


def test_the_one_standard_error_choice_is_the_stronger_lambda_that_is_as_good(tmp_path):
    scores = {BN: [0.80, 0.82], L1: [0.90, 0.94], ("bn", 0.01, 0): [0.905, 0.915], ("bn", 0.1, 0): [0.5, 0.6]}
    write_arms(tmp_path / "runs", scores)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Best val accuracy: L1 = 0.001 (ring). One-standard-error choice: L1 = 0.01" in page.text


def test_a_grid_of_both_lambdas_becomes_a_heat_map(tmp_path):
    write_arms(tmp_path / "runs", {("bn", a, b): [0.9 - a - b] for a in (0, 0.01, 0.02) for b in (0, 0.01)})
    report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True)
    assert (tmp_path / "report" / "heat-map-1.svg").exists()


def test_two_searches_of_one_lambda_each_are_no_grid(tmp_path):
    arms = [(0.01 * n, 0.0) for n in range(5)] + [(0.0, 0.01 * n) for n in range(1, 5)]
    write_arms(tmp_path / "runs", {("bn", l1, l2): [0.9] for l1, l2 in arms})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Varying L1: bn" in page.source
    assert "Varying L1 and L2" not in page.source


def test_of_many_lambdas_the_small_curves_reach_from_the_least_to_the_greatest(tmp_path):
    write_arms(tmp_path / "runs", {("bn", 0.01 * n, 0.0): [0.9] for n in range(20)})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "12 of 20 lambdas, from the least to the greatest" in page.text
    (alt,) = re.findall(r'aria-label="(Train and test accuracy for each L1[^"]*)"', page.source)
    assert alt.count("points") == 12
    assert "L1 0:" in alt
    assert "L1 0.19:" in alt


def test_dead_kernels_are_counted_by_layer(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    kernels = np.ones((4, 2, 3, 3), np.float32)
    kernels[0, 0] = 0.0005
    kernels[1, 1] = 0.0005
    kernels[1, 1, 0, 0] = 0.002  # one weight is enough to live
    save_file({"conv.weight": kernels, "norm.weight": np.zeros(4, np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "1 / 8" in page.text
    assert "Dead kernels of bn: 1" in page.source


def test_a_convolution_of_one_by_one_has_no_kernels(tmp_path):
    """As in the records' counts."""
    run = write_run(tmp_path / "runs" / "a")
    weights = {"conv.weight": np.ones((4, 2, 3, 3)), "classify.weight": np.zeros((10, 4, 1, 1))}
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "0 / 8" in page.text
    assert "classify" not in page.text
    assert "no kernel died" in page.text


@pytest.mark.mnist
def test_misclassified_images_of_real_mnist_are_drawn(tmp_path, mnist_root):
    from reg_sweep.comparison.predictions import find_test_images
    from reg_sweep.config import RunConfig, to_dict

    config = to_dict(RunConfig())
    config["data"]["root"] = str(mnist_root)
    run = write_run(tmp_path / "runs" / "a", data={"n_test": 10_000}, predictions=False)
    _, why = find_test_images(config, "local copy", np.zeros(3), None)
    assert "labels differ" in why
    from reg_sweep.comparison.predictions import _idx

    label = _idx(mnist_root / "MNIST/raw/t10k-labels-idx1-ubyte").astype(int)
    predicted = label.copy()
    predicted[:5] = (label[:5] + 1) % 10
    np.savez(run / "predictions.npz", predicted=predicted, probability=np.full(10_000, 0.9), label=label)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True)
    assert page.source.count('class="tile d1-tile"') == 10  # five of the arm, the same five of all arms
    assert "data:image/png;base64," in page.source
    assert (tmp_path / "report" / "mistakes-0.png").exists()
