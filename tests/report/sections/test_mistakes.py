import numpy as np
import pytest
from pages import report
from trees import write_cifar10, write_run

from reg_sweep.comparison.predictions import find_test_images
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.images import read_test_images
from reg_sweep.report.figures.theme import sprite_sheet


@pytest.mark.slow
def test_misclassified_images_of_cifar10_are_drawn_in_colour(tmp_path, monkeypatch):
    images = write_cifar10(tmp_path / "data", monkeypatch)
    monkeypatch.setenv("REG_SWEEP_DATA", str(tmp_path / "data"))
    write_run(tmp_path / "runs" / "a", accuracy=0.9, dataset="CIFAR10")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True)
    assert page.source.count('class="tile d1-tile"') == 5  # of a single arm; what all arms miss is the same
    assert "The images themselves are not shown" not in page.text
    assert sprite_sheet(images[:5], 32) in page.source
    assert (tmp_path / "report" / "mistakes-0.svg").exists()


@pytest.mark.slow
@pytest.mark.mnist
def test_misclassified_images_of_real_mnist_are_drawn(tmp_path, mnist_root):
    config = to_dict(RunConfig())
    config["data"]["root"] = str(mnist_root)
    run = write_run(tmp_path / "runs" / "a", data={"n_test": 10_000}, predictions=False)
    _, why = find_test_images(config, "local copy", np.zeros(3), None)
    assert "labels differ" in why
    _, label = read_test_images(mnist_root, "MNIST")
    predicted = label.copy()
    predicted[:5] = (label[:5] + 1) % 10
    np.savez(run / "predictions.npz", predicted=predicted, probability=np.full(10_000, 0.9), label=label)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True)
    assert page.source.count('class="tile d1-tile"') == 5  # of a single arm; what all arms miss is the same
    assert "data:image/png;base64," in page.source
    assert (tmp_path / "report" / "mistakes-0.svg").exists()
