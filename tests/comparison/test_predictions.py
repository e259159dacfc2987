import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from trees import N_TEST, write_cifar10, write_predictions

from reg_sweep.comparison.predictions import (
    Predictions,
    class_names,
    clipped,
    find_test_images,
    mistakes,
    read_predictions,
)
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.runs.record import RecordError


def predictions(predicted, probability, label) -> Predictions:
    return Predictions(np.array(predicted), np.array(probability), np.array(label), None)


def test_mistakes_rank_by_the_wrong_probability_averaged_over_runs():
    label = [0, 1, 2, 0]
    a = predictions([1, 1, 1, 2], [0.6, 0.9, 0.9, 0.5], label)
    b = predictions([1, 1, 2, 1], [0.8, 0.9, 0.9, 0.6], label)
    found = mistakes([a, b])
    assert found.worst(25).tolist() == [0, 3, 2]
    assert found.confidence.tolist() == pytest.approx([0.7, 0, 0.45, 0.55])
    assert found.n_wrong.tolist() == [2, 0, 1, 2]
    assert found.predicted[[0, 2, 3]].tolist() == [1, 1, 1]  # the surest run's
    assert found.probability[[0, 2, 3]].tolist() == [0.8, 0.9, 0.6]
    assert found.confusion.tolist() == [[0, 3, 1], [0, 2, 0], [0, 1, 1]]
    assert mistakes([predictions([0, 1], [1.0, 1.0], [0, 1])]).worst(25).size == 0


def test_confusion_counts_each_image_of_each_run_once(tmp_path):
    for n_wrong in (3, 20):
        write_predictions(tmp_path, n_wrong)
        found = mistakes([read_predictions(tmp_path, N_TEST)] * 2)
        assert found.confusion.sum() == 2 * N_TEST
        assert np.trace(found.confusion) == 2 * (N_TEST - n_wrong)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "unreadable"),
        (lambda path: path.write_bytes(b""), "unreadable"),
        (lambda path: np.savez(path, predicted=np.zeros(N_TEST)), "got no probability, label"),
        (lambda path: write_predictions(path.parent, 3, n_test=7), r"shape \(50,\)"),
    ],
)
def test_damaged_predictions_are_an_error_that_names_the_file(tmp_path, damage, says):
    write_predictions(tmp_path, 3)
    damage(tmp_path / "predictions.npz")
    with pytest.raises(RecordError, match=rf"predictions\.npz: .*{says}"):
        read_predictions(tmp_path, N_TEST)


def config(root: Path) -> dict:
    return to_dict(RunConfig()) | {"data": to_dict(RunConfig())["data"] | {"root": str(root)}}


def write_idx(path: Path, array: np.ndarray, packed: bool) -> None:
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".gz" * packed).write_bytes(gzip.compress(content) if packed else content)


@pytest.fixture(params=[False, True], ids=["plain", "gzipped"])
def digits(request, tmp_path, monkeypatch):
    monkeypatch.delenv("REG_SWEEP_DATA", raising=False)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 6, 5), np.uint8), np.arange(30, dtype=np.uint8) % 10
    write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", images, request.param)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", labels, request.param)
    return tmp_path, images, labels


@pytest.mark.parametrize("at", ["the run's root", "the environment's"])
def test_test_images_are_found_where_the_run_had_them_or_through_the_environment(digits, monkeypatch, at):
    root, images, labels = digits
    if at == "the environment's":
        monkeypatch.setenv("REG_SWEEP_DATA", str(root))
        root /= "nowhere"
    found, why = find_test_images(config(root), "local copy", labels, None)
    assert np.array_equal(found, images)
    assert why == ""


def test_images_with_other_labels_are_not_shown(digits):
    root, _, labels = digits
    found, why = find_test_images(config(root), "local copy", labels[::-1], None)
    assert found is None
    assert "labels differ" in why


@pytest.mark.parametrize("harm", ["cut off", "fewer than labels"])
def test_damaged_images_and_fewer_than_labels_are_as_good_as_none(digits, harm):
    root, images, labels = digits
    (path,) = (root / "MNIST/raw").glob("t10k-images*")
    if harm == "cut off":
        path.write_bytes(path.read_bytes()[:40])
    else:
        write_idx(path.with_suffix(""), images[:20], packed=path.suffix == ".gz")
    found, why = find_test_images(config(root), "local copy", labels, None)
    assert found is None
    assert str(root) in why


@pytest.mark.parametrize("packed", [True, False])
def test_test_images_are_not_read_beyond_any_size_that_is_known(tmp_path, monkeypatch, packed):
    monkeypatch.setattr("reg_sweep.images.MAX_IDX", 10_000)
    write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", np.zeros((30, 20, 20), np.uint8), packed=packed)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.zeros(30, np.uint8), packed=packed)
    found, _ = find_test_images(config(tmp_path), "local copy", np.zeros(30, int), None)
    assert found is None


@pytest.mark.parametrize("is_known", [True, False])
def test_images_of_cifar10_are_found_in_colour_and_an_unknown_batch_is_never_unpickled(tmp_path, monkeypatch, is_known):
    images = write_cifar10(tmp_path, monkeypatch)
    if not is_known:
        monkeypatch.undo()
    monkeypatch.delenv("REG_SWEEP_DATA", raising=False)
    cifar = config(tmp_path)
    cifar["data"]["source"]["dataset"] = "CIFAR10"
    found, why = find_test_images(cifar, "local copy", np.arange(N_TEST) % 10, None)
    assert np.array_equal(found, images) if is_known else found is None
    assert ("no CIFAR10 test images" in why) != is_known


def test_a_data_set_of_the_users_own_is_said_not_to_be_readable(tmp_path):
    own = config(tmp_path)
    own["data"]["source"] = {"_target_": "my.images"}
    found, why = find_test_images(own, "custom", np.zeros(3), None)
    assert found is None
    assert why


def archived(tmp_path: Path, **arrays) -> tuple[np.ndarray | None, str]:
    """The images that are found for a run on an archive of one's own, with the labels 0, 1, 2."""
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    read = config(tmp_path)
    read["data"]["source"] = {"_target_": "reg_sweep.npz_images", "file": "a.npz"}
    return find_test_images(read, "a.npz", np.arange(3), None)


def test_an_archive_of_ones_own_shows_its_test_images(tmp_path):
    images = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)
    found, why = archived(tmp_path, test_images=images, test_labels=np.arange(3, dtype=np.uint8))
    assert why == ""
    assert np.array_equal(found, images)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (None, np.arange(3), "no a.npz test images under"),
        (np.zeros((3, 4, 4)), np.arange(3), "no a.npz test images under"),
        (np.zeros((3, 4, 4, 2), np.uint8), np.arange(3), "no a.npz test images under"),
        (np.zeros((3, 4, 4), np.uint8), np.array([{}] * 3, object), "no a.npz test images under"),
        (np.zeros((500, 100, 100), np.uint8), np.arange(500), "no a.npz test images under"),
        (np.zeros((3, 4, 4), np.uint8), np.zeros(3, int), "their labels differ"),
    ],
    ids=["none", "floats", "two channels", "objects", "bomb", "other labels"],
)
def test_an_archive_without_the_images_to_show_is_said_to_have_none(images, labels, says, tmp_path, monkeypatch):
    monkeypatch.setattr("reg_sweep.images.source._MAX_SHOWN", 1_000_000)
    found, why = archived(tmp_path, test_labels=labels, **({} if images is None else {"test_images": images}))
    assert found is None
    assert says in why


@pytest.mark.slow
def test_the_offline_samples_test_images_come_by_their_index_and_are_not_guessed_without():
    index = np.array([0, 700, 4999])
    found, _ = find_test_images(config(Path("nowhere")), "offline sample", np.array([0, 1, 9]), index)
    assert (found.shape, found.max()) == ((3, 28, 28), 255)
    found, why = find_test_images(config(Path("nowhere")), "offline sample", np.zeros(10), None)
    assert found is None
    assert "which images" in why


@pytest.mark.mnist
def test_real_test_images_match_their_labels(mnist_root):
    path = mnist_root / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes()) if path.is_file() else path.with_suffix("").read_bytes()
    labels = np.frombuffer(content, np.uint8, offset=8)
    found, _ = find_test_images(config(mnist_root), "local copy", labels, None)
    assert found.shape == (10_000, 28, 28)
    assert labels[0] == 7


def test_classes_go_by_name_where_the_data_set_has_names():
    fashion = config(Path("x"))
    fashion["data"]["source"] = {"_target_": "t", "dataset": "FashionMNIST"}
    assert class_names(fashion, 10)[9] == "Ankle boot"
    assert class_names(fashion, 2, ("cat", "dog")) == ["cat", "dog"]
    assert class_names(config(Path("x")), 10)[9] == "9"
    long = [f"a very long name of a class, number {i}" for i in range(10)]
    assert len({clipped(name) for name in long}) == 10
    assert max(len(clipped(name)) for name in long) == 14
    assert clipped("fourteen chars") == "fourteen chars"
