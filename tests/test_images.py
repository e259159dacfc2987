"""Sources of images and their faults, and the reader that needs no torch."""

import dataclasses
import hashlib
import io
import pickle
import subprocess
import sys
from pathlib import Path

import idx_files
import numpy as np
import pytest

from reg_sweep import images as images_module
from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.images import Images, check_images, mnist_sample, npz_images, read_test_images, torchvision_images


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    return idx_files.without_network(monkeypatch)


def same_images(a: Images, b: Images) -> bool:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


# ---- files


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_idx_files_are_read_plain_and_packed(dataset, packed, tmp_path, monkeypatch, no_network):
    idx_files.write_idx(tmp_path, dataset, packed=packed, known=monkeypatch)
    read = torchvision_images(str(tmp_path), dataset)
    assert same_images(read, idx_files.small_set())
    assert read.source == "local copy"
    assert read.train_labels.dtype == np.int64
    assert no_network == []


def test_nothing_is_written_into_the_folder_of_a_local_copy(tmp_path, monkeypatch):
    raw = idx_files.write_idx(tmp_path, "MNIST", packed=True, known=monkeypatch)
    for folder in (raw, raw.parent, tmp_path):
        folder.chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    torchvision_images(str(tmp_path), "MNIST")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("stem", idx_files.STEMS)
def test_a_changed_byte_is_found_and_named_with_both_checksums(stem, tmp_path, monkeypatch):
    path = idx_files.write_idx(tmp_path, "MNIST", known=monkeypatch) / stem
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = hashlib.md5(content).hexdigest()
    with pytest.raises(DataError) as error:
        torchvision_images(str(tmp_path), "MNIST")
    assert str(error.value) == (
        f"{path} is corrupt: its MD5 must be {expected}, found {found}: remove it, or copy it again"
    )


@pytest.mark.parametrize("left", [0, 3, 7, 100, -1])
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_a_truncated_file_is_named_and_never_used(left, packed, tmp_path, no_network):
    path = idx_files.write_idx(tmp_path, "KMNIST", packed=packed) / (idx_files.STEMS[0] + ".gz" * packed)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError) as error:
        torchvision_images(str(tmp_path), "KMNIST")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert no_network == []


def test_a_packed_file_without_a_known_content_must_have_torchvisions_checksum(tmp_path):
    from torchvision import datasets

    raw = idx_files.write_idx(tmp_path, "KMNIST", packed=True)
    expected = dict(datasets.KMNIST.resources)[f"{idx_files.STEMS[0]}.gz"]
    with pytest.raises(DataError, match=f"its MD5 must be {expected}, found"):
        torchvision_images(str(tmp_path), "KMNIST")
    assert raw.is_dir()


def test_a_file_that_is_no_idx_file_is_named(tmp_path):
    path = idx_files.write_idx(tmp_path, "KMNIST") / idx_files.STEMS[2]
    path.write_bytes(b"\0\0\x0d\x01" + path.read_bytes()[4:])  # float32
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not a complete idx file"):
        torchvision_images(str(tmp_path), "KMNIST")


@pytest.mark.mnist
def test_real_fashion_mnist_is_read_where_it_lies_beside_mnist(fashion_mnist_root):
    images = torchvision_images(str(fashion_mnist_root), "FashionMNIST")
    assert np.bincount(images.train_labels).tolist() == [6_000] * 10
    assert np.bincount(images.test_labels).tolist() == [1_000] * 10


# ---- out of reach


@pytest.mark.slow
def test_the_offline_sample_is_5000_balanced_images_of_which_1000_are_test():
    images = mnist_sample()
    assert np.bincount(images.train_labels).tolist() == [400] * 10
    assert np.bincount(images.test_labels).tolist() == [100] * 10
    assert images.train_images.shape == (4_000, 28, 28)
    assert images.train_images.max() == 255
    assert len(np.unique(images.test_index)) == 1_000
    assert same_images(images, mnist_sample())


@pytest.mark.parametrize("dataset", ["FashionMNIST", "KMNIST", "CIFAR10"])
def test_no_sample_stands_in_for_another_data_set(dataset, tmp_path):
    with pytest.raises(DataError, match=f"{dataset} is not under data.root"):
        torchvision_images(str(tmp_path), dataset)


def test_a_root_that_can_not_be_a_folder_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data.root must be a folder .*; choose another data.root"):
        torchvision_images(str(tmp_path / "file" / "data"), "MNIST")


def test_a_root_that_can_not_be_written_is_a_config_error(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="Permission denied"):
        torchvision_images(str(tmp_path), "MNIST")
    assert no_network == []


def test_a_download_is_read_like_a_local_copy_and_named_as_one(tmp_path, monkeypatch):
    def download(folder: Path, dataset: str) -> None:
        idx_files.write_idx(folder, dataset, packed=True, known=monkeypatch)

    monkeypatch.setattr(images_module, "_download", download)
    read = torchvision_images(str(tmp_path), "MNIST")
    assert same_images(read, idx_files.small_set())
    assert read.source == "download"


def test_an_unknown_data_set_is_named():
    with pytest.raises(ConfigError, match="must be one of MNIST, FashionMNIST, KMNIST, CIFAR10, got 'SVHN'"):
        torchvision_images(".", "SVHN")


# ---- for readers without torch


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_test_images_alone_are_read_as_the_whole_set_is(packed, tmp_path):
    raw = idx_files.write_idx(tmp_path, "KMNIST", packed=packed)
    for path in raw.glob("train-*"):
        path.unlink()
    images, labels = read_test_images(tmp_path, "KMNIST")
    assert np.array_equal(images, idx_files.small_set().test_images)
    assert np.array_equal(labels, idx_files.small_set().test_labels)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("left", [None, 0, 3, 7, 100, -1, "labels"], ids=str)
def test_test_images_that_are_missing_damaged_or_none_are_none(left, packed, tmp_path):
    raw = idx_files.write_idx(tmp_path, "MNIST", packed=packed)
    images, labels = (raw / (stem + ".gz" * packed) for stem in idx_files.STEMS[2:])
    if left is None:
        images.unlink()
    else:
        images.write_bytes(labels.read_bytes() if left == "labels" else images.read_bytes()[:left])
    assert read_test_images(tmp_path, "MNIST") is None


@pytest.mark.slow
def test_images_are_read_without_torch(tmp_path):
    idx_files.write_idx(tmp_path, "FashionMNIST")
    code = (
        "import sys, pathlib\n"
        "from reg_sweep.images import mnist_sample, offline_sample, read_test_images\n"
        f"images, labels = read_test_images(pathlib.Path({str(tmp_path)!r}), 'FashionMNIST')\n"
        "mnist_sample()\n"
        "print(images.shape, offline_sample()[0].shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(20, 28, 28) (5000, 28, 28) False", done.stderr


def test_the_checksums_are_torchvisions():
    from torchvision import datasets

    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        assert {f"{name}/{file}": md5 for file, md5 in getattr(datasets, name).resources}.items() <= (
            images_module._PACKED_MD5.items()
        )
    assert datasets.CIFAR10.base_folder == images_module._CIFAR10_FOLDER
    assert dict(datasets.CIFAR10.train_list) == images_module._CIFAR10_TRAIN_MD5
    assert dict(datasets.CIFAR10.test_list) == images_module._CIFAR10_TEST_MD5


# ---- CIFAR10


class Trap:
    """An object that runs code when unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def write_cifar10(root: Path, known: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Six batches of five images, of known checksums; returns all images, as (N, 32, 32, 3), and labels."""
    rng = np.random.default_rng(3)
    pixels, labels = rng.integers(0, 256, (30, 3, 32, 32), dtype=np.uint8), np.arange(30) % 10
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for table in (images_module._CIFAR10_TRAIN_MD5, images_module._CIFAR10_TEST_MD5):
        for name in list(table):
            i = 25 if name == "test_batch" else 5 * (int(name[-1]) - 1)
            batch = {"data": pixels[i : i + 5].reshape(5, -1), "labels": labels[i : i + 5].tolist()}
            content = pickle.dumps(batch)
            (folder / name).write_bytes(content)
            known.setitem(table, name, hashlib.md5(content).hexdigest())
    return pixels.transpose(0, 2, 3, 1), labels


def test_cifar10_is_read_batch_after_batch_with_its_channels_last(tmp_path, monkeypatch, no_network):
    pixels, labels = write_cifar10(tmp_path, monkeypatch)
    read = torchvision_images(str(tmp_path), "CIFAR10")
    assert same_images(read, Images(pixels[:25], labels[:25], pixels[25:], labels[25:]))
    assert read.source == "local copy"
    images, test_labels = read_test_images(tmp_path, "CIFAR10")
    assert np.array_equal(images, pixels[25:])
    assert np.array_equal(test_labels, labels[25:])
    assert no_network == []


def test_a_batch_of_another_checksum_is_named_and_never_unpickled(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(Trap()))
    assert read_test_images(tmp_path, "CIFAR10") is None
    with pytest.raises(DataError, match="test_batch is corrupt: its MD5 must be"):
        torchvision_images(str(tmp_path), "CIFAR10")
    assert not (tmp_path / "sprung").exists()
    pickle.loads(path.read_bytes())  # the trap is one
    assert (tmp_path / "sprung").exists()


def test_cifar10_with_a_batch_missing_is_not_there(tmp_path, monkeypatch, no_network):
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match="CIFAR10 is not under"):
        torchvision_images(str(tmp_path), "CIFAR10")
    assert no_network
    assert read_test_images(tmp_path / "nowhere", "CIFAR10") is None


@pytest.mark.parametrize("index", [np.zeros(3, int), np.zeros(2), np.array([0, -1]), np.array([0, 2**32]), [0, 1]])
def test_an_index_that_no_record_of_predictions_takes_is_refused_before_the_run(index):
    pixels, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])
    images = Images(pixels, labels, pixels, labels, test_index=index)
    with pytest.raises(DataError, match="test_index as one whole number from 0 to 2147483648 for each of the 2 test"):
        check_images(images)


# ---- archives and labels of one's own


def archive(path: Path, **changes) -> dict[str, np.ndarray]:
    pixels, labels = np.zeros((6, 4, 4, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2], np.uint8)
    arrays = {"train_images": pixels, "train_labels": labels, "test_images": pixels, "test_labels": labels, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_an_archive_of_ones_own_gives_its_images_and_the_names_of_their_classes(tmp_path):
    names = np.array(["cat", "dog", "eel"])
    arrays = archive(
        tmp_path / "a.npz", classes=names, val_images=np.ones((2, 4, 4, 3), np.uint8), val_labels=names == "cat"
    )
    images = npz_images(str(tmp_path), "a.npz")
    assert (images.class_names, images.n_classes, images.source) == (("cat", "dog", "eel"), 3, "a.npz")
    assert (images.train_images == arrays["train_images"]).all()
    assert images.val_images.shape == (2, 4, 4, 3)


def array_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "must be a file with the images, got none: name its folder with data.root="),
        (lambda path: (path.unlink(), path.mkdir()), "must be a numpy archive .*, got a folder, a pipe or a device"),
        (lambda path: path.write_bytes(b"no archive"), "must be a numpy archive of plain arrays"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "must be a numpy archive of plain arrays"),
        (lambda path: path.write_bytes(array_file()), r"plain arrays \(numpy.savez\), got one array"),
        (lambda path: np.savez(path, a=np.array([{}], object)), "must be a numpy archive of plain arrays"),
        (lambda path: archive(path, test_labels=None), "got no test_labels"),
    ],
)
def test_a_file_that_is_no_archive_of_images_is_one_line(change, message, tmp_path):
    archive(tmp_path / "a.npz")
    change(tmp_path / "a.npz")
    with pytest.raises(DataError, match=message) as error:
        npz_images(str(tmp_path), "a.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 3], None, "labels without gaps, got 3 different ones up to 3, not 2: renumber them"),
        ([0, 1, 10**9], None, "labels without gaps, got 3 different ones up to 1000000000, not 2"),
        ([0, 1, 3], ("a", "b", "c"), "a name for each class, got 3 names and a label 3"),
        ([0, 1, 1], ("a", "a"), "class_names as different texts"),
        ([0, 1, 1], ("a", " "), "class_names as texts that are not empty"),
        ([0, 1, 1], (["a"], ["b"]), "class_names as texts that are not empty"),
        ([0, 1, 1], "ab", "class_names as a tuple of texts, got 'ab'"),
        ([0, 1, 1], {"a", "b"}, "class_names as a tuple of texts"),
        ([0, 1, 1], iter("ab"), "class_names as a tuple of texts"),
        ([0, 1, 1], np.array(["a", "b"]), None),
        ([0, -1, 1], None, "train_labels as whole numbers from 0, got -1: leave those images out, or renumber"),
        (np.array([0, 1, 2**64 - 1], np.uint64), None, "labels without gaps, got 3 different ones"),
        ([0, 1, 3], ("a", "b", "c", "d"), None),
    ],
)
def test_labels_and_names_go_together(labels, names, message):
    pixels, found = np.zeros((3, 4, 4), np.uint8), np.array(labels)
    images = Images(pixels, found, pixels, found, class_names=names)
    if message is None:
        check_images(images)
        return
    with pytest.raises(DataError, match=message):
        check_images(images)
    with pytest.raises(DataError, match="val_images and val_labels together"):
        check_images(Images(pixels, found, pixels, found, val_labels=found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((3, 4, 4, 0), np.uint8)}, r"train_images with pixels, got none in the shape \(3, 4"),
        ({"train_images": np.zeros((3, 0, 4), np.uint8)}, "train_images with pixels"),
        ({"source": 5}, "a text as the images' source, got 5"),
        ({"test_index": np.arange(40.0)}, "test_index as one whole number"),
    ],
)
def test_a_source_without_pixels_or_with_odd_facts_is_one_line(change, message):
    pixels, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1])
    with pytest.raises(DataError, match=message) as error:
        check_images(dataclasses.replace(Images(pixels, labels, pixels, labels), **change))
    assert "\n" not in str(error.value)
