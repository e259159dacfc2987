"""Sources and their faults, splits, and the batched augmentation against torchvision's on single images."""

import gzip
import hashlib
import logging
import struct
import urllib.error
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import reference
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets

from reg_sweep.config import ConfigError, DataConfig, DataError
from reg_sweep import images as images_module
from reg_sweep.images import Images, mnist_sample, torchvision_images
from reg_sweep.training import data as data_module
from reg_sweep.training.data import (
    Augmentation,
    Split,
    batches,
    check_split,
    load_data,
    random_stream,
    rotation_table,
)

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(data_module, "_loaded", {})
    monkeypatch.setattr(data_module, "_prepared", {})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """torchvision's downloads fail as they do without a network; the list names what was asked for."""
    asked = []

    def refuse(request, *args, **kwargs):
        asked.append(request)
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_set() -> Images:
    """50 train and 20 test images of 28x28."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (70, 28, 28), dtype=np.uint8)
    labels = np.arange(70) % 10
    return Images(pixels[:50], labels[:50], pixels[50:], labels[50:])


def write_idx(root: Path, dataset: str, *, packed: bool = False, known: pytest.MonkeyPatch | None = None) -> Path:
    """The four files of `small_set`; with `known` their checksums are the ones expected."""
    raw = root / dataset / "raw"
    raw.mkdir(parents=True)
    images = small_set()
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    for stem, array in zip(STEMS, arrays, strict=True):
        content = idx(array.astype(np.uint8))
        if known is not None:
            known.setitem(images_module._UNPACKED_MD5, f"{dataset}/{stem}", hashlib.md5(content).hexdigest())
        (raw / (stem + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return raw


def same_images(a: Images, b: Images) -> bool:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


# ---- files


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_idx_files_are_read_plain_and_packed(dataset, packed, tmp_path, monkeypatch, no_network):
    write_idx(tmp_path, dataset, packed=packed, known=monkeypatch)
    read = torchvision_images(str(tmp_path), dataset)
    assert same_images(read, small_set())
    assert read.source == "local copy"
    assert read.train_labels.dtype == np.int64
    assert no_network == []


def test_nothing_is_written_into_the_folder_of_a_local_copy(tmp_path, monkeypatch):
    raw = write_idx(tmp_path, "MNIST", packed=True, known=monkeypatch)
    for folder in (raw, raw.parent, tmp_path):
        folder.chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    torchvision_images(str(tmp_path), "MNIST")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("stem", STEMS)
def test_a_changed_byte_is_found_and_named_with_both_checksums(stem, tmp_path, monkeypatch):
    path = write_idx(tmp_path, "MNIST", known=monkeypatch) / stem
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
    path = write_idx(tmp_path, "KMNIST", packed=packed) / (STEMS[0] + ".gz" * packed)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError) as error:
        torchvision_images(str(tmp_path), "KMNIST")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert no_network == []


def test_a_packed_file_without_a_known_content_must_have_torchvisions_checksum(tmp_path):
    raw = write_idx(tmp_path, "KMNIST", packed=True)
    expected = dict(datasets.KMNIST.resources)[f"{STEMS[0]}.gz"]
    with pytest.raises(DataError, match=f"its MD5 must be {expected}, found"):
        torchvision_images(str(tmp_path), "KMNIST")
    assert raw.is_dir()


def test_a_file_that_is_no_idx_file_is_named(tmp_path):
    path = write_idx(tmp_path, "KMNIST") / STEMS[2]
    path.write_bytes(b"\0\0\x0d\x01" + path.read_bytes()[4:])  # float32
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not a whole idx file"):
        torchvision_images(str(tmp_path), "KMNIST")


@pytest.mark.mnist
def test_real_mnist_has_its_known_mean_std_and_split(mnist_root):
    loaded = load_data(DataConfig(root=str(mnist_root)))
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (50_000, 10_000, 10_000)
    assert loaded.facts()["source"] == "local copy"
    whole = load_data(DataConfig(root=str(mnist_root), val_size=0))
    assert whole.mean.item() == pytest.approx(0.1307, abs=5e-5)
    assert whole.std.item() == pytest.approx(0.3081, abs=5e-5)
    assert len(whole.val) == 0


@pytest.mark.mnist
def test_real_fashion_mnist_is_read_where_it_lies_beside_mnist(fashion_mnist_root):
    images = torchvision_images(str(fashion_mnist_root), "FashionMNIST")
    assert np.bincount(images.train_labels).tolist() == [6_000] * 10
    assert np.bincount(images.test_labels).tolist() == [1_000] * 10


# ---- out of reach


def test_the_offline_sample_stands_in_for_mnist_loudly(tmp_path, caplog, no_network):
    config = DataConfig(root=str(tmp_path / "new"))
    with caplog.at_level(logging.WARNING):
        loaded = load_data(config)
    assert no_network
    assert "NOT THE FULL DATA SET" in caplog.text
    assert "name resolution" in caplog.text
    assert loaded.source == loaded.facts()["source"] == "offline sample"
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (3_333, 667, 1_000)
    assert loaded.n_classes == 10


def test_the_offline_sample_is_5000_balanced_images_of_which_1000_are_test():
    images = mnist_sample()
    assert np.bincount(images.train_labels).tolist() == [400] * 10
    assert np.bincount(images.test_labels).tolist() == [100] * 10
    assert images.train_images.shape == (4_000, 28, 28)
    assert images.train_images.max() == 255
    assert len(np.unique(images.test_index)) == 1_000
    assert same_images(images, mnist_sample())


def test_sizes_shrink_with_the_offline_sample_but_val_never_to_nothing(tmp_path):
    small = load_data(DataConfig(root=str(tmp_path), val_size=3, train_size=100))
    assert (len(small.train), len(small.val)) == (100, 1)
    most = load_data(DataConfig(root=str(tmp_path), val_size=10_000, train_size=50_000))
    assert (len(most.train), len(most.val)) == (3_333, 667)
    assert len(load_data(DataConfig(root=str(tmp_path), val_size=0)).val) == 0


def test_without_the_offline_sample_data_out_of_reach_is_one_line_of_error(tmp_path):
    with pytest.raises(DataError) as error:
        load_data(DataConfig(root=str(tmp_path), offline_sample=False))
    assert "MNIST is neither under data.root" in str(error.value)
    assert "\n" not in str(error.value)
    load_data(DataConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match="MNIST is neither"):  # also when a run before it fell back
        load_data(DataConfig(root=str(tmp_path), offline_sample=False))


@pytest.mark.parametrize("dataset", ["FashionMNIST", "KMNIST", "CIFAR10"])
def test_no_sample_stands_in_for_another_data_set(dataset, tmp_path):
    with pytest.raises(DataError, match=f"{dataset} is neither under data.root"):
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
        write_idx(folder, dataset, packed=True, known=monkeypatch)

    monkeypatch.setattr(images_module, "_download", download)
    read = torchvision_images(str(tmp_path), "MNIST")
    assert same_images(read, small_set())
    assert read.source == "download"


def test_an_unknown_data_set_is_named():
    with pytest.raises(ConfigError, match="must be one of MNIST, FashionMNIST, KMNIST, CIFAR10, got 'SVHN'"):
        torchvision_images(".", "SVHN")


# ---- splits


def images_by_bytes(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images]


@given(val_size=st.integers(0, 290), seed=st.integers(0, 3), n_classes=st.integers(1, 10))
def test_train_and_val_part_the_images_and_each_keeps_every_classs_share(val_size, seed, n_classes):
    loaded = tiny.tiny_data(val_size=val_size, split_seed=seed, n_classes=n_classes)
    whole = tiny.tiny_data(val_size=0, n_classes=n_classes)
    assert len(loaded.val) == val_size
    assert sorted(images_by_bytes(loaded.train) + images_by_bytes(loaded.val)) == sorted(images_by_bytes(whole.train))
    share = val_size / 300
    in_all = np.bincount(whole.train.labels, minlength=n_classes)
    in_val = np.bincount(loaded.val.labels, minlength=n_classes)
    assert (np.abs(in_val - in_all * share) < 1).all()


def test_each_image_keeps_its_label():
    images = tiny.tiny_images("")
    label_of = dict(zip(map(bytes, images.train_images), images.train_labels, strict=True))
    loaded = tiny.tiny_data(train_size=100)
    for split in (loaded.train, loaded.val):
        assert [label_of[image] for image in images_by_bytes(split)] == split.labels.tolist()


@given(train_size=st.integers(1, 240))
def test_a_train_subset_is_stratified_and_leaves_val_as_it_was(train_size):
    part, whole = tiny.tiny_data(train_size=train_size), tiny.tiny_data()
    assert len(part.train) == train_size
    assert torch.equal(part.val.images, whole.val.images)
    assert set(images_by_bytes(part.train)) <= set(images_by_bytes(whole.train))
    counts = np.bincount(part.train.labels, minlength=10)
    assert counts.max() - counts.min() <= 1


def test_another_split_seed_draws_another_val_and_the_same_one_the_same():
    first, again, other = (tiny.tiny_data(split_seed=s) for s in (0, 0, 1))
    assert torch.equal(first.val.images, again.val.images)
    assert set(images_by_bytes(first.val)) != set(images_by_bytes(other.val))


@given(share=st.floats(0, 1))
def test_label_noise_replaces_its_exact_share_of_train_labels_and_no_others(share):
    clean, noisy, again = tiny.tiny_data(), tiny.tiny_data(label_noise=share), tiny.tiny_data(label_noise=share)
    changed = clean.train.labels != noisy.train.labels
    assert changed.sum() == round(share * 240)
    assert torch.equal(noisy.train.labels, again.train.labels)
    assert noisy.train.labels.min() >= 0
    assert noisy.train.labels.max() <= 9
    assert torch.equal(clean.val.labels, noisy.val.labels)
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert torch.equal(clean.train.images, noisy.train.images)


def test_label_noise_needs_a_second_class():
    with pytest.raises(ConfigError, match=r"data.label_noise must be 0 with a single class, got 0.5"):
        tiny.tiny_data(label_noise=0.5, n_classes=1)


def test_a_split_that_asks_for_too_much_is_refused_before_anything_is_read(no_network):
    with pytest.raises(ConfigError, match=r"data.val_size must be below the 60000 train images .* got 70000"):
        load_data(DataConfig(root="/nowhere", val_size=70_000))
    with pytest.raises(ConfigError, match=r"data.train_size must be at most 50000 .* got 50001"):
        check_split(DataConfig(train_size=50_001))
    with pytest.raises(ConfigError, match="below the 4000 train"):
        check_split(DataConfig(source={"_target_": "reg_sweep.mnist_sample"}, val_size=4_000))
    with pytest.raises(ConfigError, match="below the 300 train"):
        tiny.tiny_data(val_size=300)
    assert no_network == []


# ---- measures


@pytest.mark.parametrize("channels", [0, 3])
def test_mean_and_std_are_those_of_the_train_pixels_alone(channels):
    loaded = tiny.tiny_data(channels=channels)
    pixels = loaded.train.images.double().numpy() / 255
    np.testing.assert_allclose(loaded.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(loaded.std, pixels.std((0, 2, 3)), rtol=1e-6)
    assert loaded.in_shape == (channels or 1, 20, 20)


def test_given_moments_take_the_place_of_the_measured_ones():
    loaded = tiny.tiny_data(mean=[0.25], std=[0.5])
    assert (loaded.mean.tolist(), loaded.std.tolist()) == ([0.25], [0.5])


@pytest.mark.parametrize("moments", [{"mean": [0.1, 0.2], "std": [1.0]}, {"mean": [0.1] * 3, "std": [1.0] * 3}])
def test_moments_must_be_one_number_a_channel(moments):
    with pytest.raises(ConfigError, match=r"must hold one number for each of the images' channels \(1\), got \["):
        tiny.tiny_data(**moments)


def test_the_fingerprint_is_that_of_the_source_whatever_the_split():
    prints = {
        tiny.tiny_data(**settings).fingerprint
        for settings in ({}, {"val_size": 0}, {"split_seed": 5}, {"label_noise": 0.5}, {"train_size": 50})
    }
    assert len(prints) == 1


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_the_fingerprint_changes_with_any_value(part):
    images = small_set()
    before = data_module._fingerprint(images)
    getattr(images, part).ravel()[-1] += 1
    assert data_module._fingerprint(images) != before


def test_the_fingerprint_knows_shapes_apart():
    images = small_set()
    turned = Images(images.train_images.reshape(50, 14, 56), *list(vars(images).values())[1:4])
    assert data_module._fingerprint(images) != data_module._fingerprint(turned)


# ---- cache


def test_a_second_run_reads_no_file_and_another_split_reads_none_either(tmp_path, monkeypatch):
    write_idx(tmp_path, "MNIST", known=monkeypatch)
    config = DataConfig(root=str(tmp_path), val_size=10)
    first = load_data(config)
    monkeypatch.setattr(images_module, "_read_idx", None)
    assert load_data(DataConfig(root=str(tmp_path), val_size=10)) is first
    assert len(load_data(DataConfig(root=str(tmp_path), val_size=20)).val) == 20


def test_a_relative_root_is_another_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_idx(tmp_path / name, "MNIST", known=monkeypatch)
    monkeypatch.chdir(tmp_path / "one")
    first = load_data(DataConfig(root=".", val_size=10))
    monkeypatch.chdir(tmp_path / "two")
    assert load_data(DataConfig(root=".", val_size=10)) is not first


# ---- a user's own source


def own_source(root: str, fault: str = "") -> object:
    images = tiny.tiny_images(root)
    x, y, test_x, test_y = images.train_images, images.train_labels, images.test_images, images.test_labels
    faults = {
        "": images,
        "no Images": (x, y, test_x, test_y),
        "floats": Images(x / 255, y, test_x, test_y),
        "flat": Images(x.reshape(len(x), -1), y, test_x, test_y),
        "a list": Images(x.tolist(), y, test_x, test_y),
        "tensors": Images(torch.from_numpy(x), y, test_x, test_y),
        "too few labels": Images(x, y[:-1], test_x, test_y),
        "negative labels": Images(x, y - 1, test_x, test_y),
        "labels as floats": Images(x, y.astype(float), test_x, test_y),
        "labels as a list": Images(x, y.tolist(), test_x, test_y),
        "no test images": Images(x, y, test_x[:0], test_y[:0]),
        "another size": Images(x, y, test_x[:, 1:], test_y),
    }
    return faults[fault]


def load_own(fault: str):
    return load_data(DataConfig(source={"_target_": "test_data.own_source", "fault": fault}, val_size=50))


def test_a_users_own_source_is_called_with_root_and_its_arguments():
    loaded = load_own("")
    assert loaded.source == "tiny"
    assert len(loaded.val) == 50


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no Images", "must return reg_sweep.Images, got tuple"),
        ("floats", r"train_images as uint8 .* got float64 of shape \(300, 20, 20\)"),
        ("flat", r"got uint8 of shape \(300, 400\)"),
        ("a list", "train_images as a numpy array, got list"),
        ("tensors", "train_images as a numpy array, got Tensor"),
        ("too few labels", r"train_labels as whole numbers from 0, one for each of the 300 images, .*\(299,\)"),
        ("negative labels", "train_labels as whole numbers from 0"),
        ("labels as floats", "train_labels as whole numbers .* got float64"),
        ("labels as a list", "train_labels as a numpy array, got list"),
        ("no test images", "test_labels as whole numbers"),
        ("another size", r"test_images of the train images' shape \(20, 20\), got \(19, 20\)"),
    ],
)
def test_what_a_users_own_source_got_wrong_is_one_line(fault, message):
    with pytest.raises(DataError, match=message) as error:
        load_own(fault)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["no_such_module.load", "tiny.no_such_function", "tiny.SIDE"])
def test_a_source_that_can_not_be_called_is_a_config_error(target):
    with pytest.raises(ConfigError, match=r"data.source._target_ must be .*, got"):
        load_data(DataConfig(source={"_target_": target}))


# ---- augmentation

FACTORS = st.floats(0, 2, width=32)


def augmentation(channels: int = 0, **settings) -> Augmentation:
    loaded = tiny.tiny_data(channels=channels)
    return Augmentation(tiny.tiny_data_config(channels=channels, **settings), loaded, CPU)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, C) uint8 -> (1, C, H, W) float32, the pixel values as they are."""
    return torch.from_numpy(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1).copy())[None].float()


@st.composite
def pictures(draw, channels: int):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    low = draw(st.integers(0, 254))
    high = draw(st.integers(low + 1, 256))
    return rng.integers(low, high, (20, 20, channels) if channels else (20, 20), dtype=np.uint8)


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("contrast_first", [False, True])
@given(data=st.data())
def test_jitter_gives_the_pixels_of_torchvision_in_either_order(channels, contrast_first, data):
    image = data.draw(pictures(channels))
    brightness, contrast = data.draw(FACTORS), data.draw(FACTORS)
    expected = reference.jitter(image, brightness, contrast, contrast_first=contrast_first)
    factors = torch.tensor([brightness]), torch.tensor([contrast])
    found = augmentation(channels).jitter(to_tensor(image), *factors, torch.tensor([contrast_first]))
    assert torch.equal(found, to_tensor(expected))


def test_jitter_by_thousands_of_factors_gives_torchvisions_pixels():
    """Every pixel value, at factors as they are drawn: a value on the edge of rounding would show."""
    rng = np.random.default_rng(0)
    image = np.arange(256, dtype=np.uint8)[:, None]
    factors = torch.from_numpy(1 + 0.1 * (2 * rng.random((2, 2_000), dtype=np.float32) - 1))
    contrast_first = torch.arange(2_000) % 2 == 0
    jitter = augmentation().jitter
    found = jitter(to_tensor(image).repeat(2_000, 1, 1, 1), *factors, contrast_first)
    for i in range(2_000):
        expected = reference.jitter(
            image, factors[0, i].item(), factors[1, i].item(), contrast_first=bool(contrast_first[i])
        )
        assert torch.equal(found[i], to_tensor(expected)[0])


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize(("rotation", "fill"), [(0.05, 1), (7.0, 1), (45.0, 0), (180.0, 255)])
def test_rotation_gives_the_pixels_of_torchvision_at_the_angles_of_its_grid(channels, rotation, fill):
    whole = augmentation(channels, rotation=rotation, fill=fill)
    angles = np.linspace(-rotation, rotation, len(rotation_table(20, 20, rotation)))
    rng = np.random.default_rng(int(rotation))
    chosen = [0, len(angles) // 2, len(angles) - 1, *rng.integers(0, len(angles), 60).tolist()]
    images = rng.integers(0, 256, (len(chosen), 20, 20, *[channels] * (channels > 0)), dtype=np.uint8)
    found = whole.rotate(torch.cat([to_tensor(image) for image in images]), torch.tensor(chosen))
    for i, image in enumerate(images):
        expected = reference.rotate(image, angles[chosen[i]], [fill] * channels if channels else fill)
        assert torch.equal(found[i], to_tensor(expected)[0])


def test_the_grid_of_angles_is_hundredths_of_a_degree_of_which_the_middle_is_none():
    table = rotation_table(6, 5, 7.0)
    assert table.shape == (1_401, 30)
    assert torch.equal(table[700], torch.arange(30))
    assert rotation_table(6, 5, 90.0).shape == (2_001, 30)


def test_an_image_without_augmentation_is_only_normalized():
    loaded = tiny.tiny_data()
    plain = augmentation(rotation=0, brightness=0, contrast=0)
    found = plain(loaded.train.images[:9], random_stream(0, "augment"))
    expected = (loaded.train.images[:9].double() / 255 - loaded.mean.item()) / loaded.std.item()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    (x, y), *_ = batches(loaded.train, loaded.mean, loaded.std, 9)
    assert torch.equal(x, found)
    assert torch.equal(y, loaded.train.labels[:9])


def test_each_image_of_a_batch_gets_the_pixels_it_would_get_alone():
    loaded = tiny.tiny_data(channels=3)
    jitter, rotate = augmentation(3).jitter, augmentation(3).rotate
    x, generator = loaded.train.images[:12].float(), torch.Generator().manual_seed(0)
    brightness, contrast = 0.8 + 0.4 * torch.rand(2, 12, generator=generator)
    first, angle = torch.rand(12, generator=generator) < 0.5, torch.randint(1_401, (12,), generator=generator)
    together = rotate(jitter(x.clone(), brightness, contrast, first), angle)
    for i in range(12):
        one = slice(i, i + 1)
        alone = rotate(jitter(x[one].clone(), brightness[one], contrast[one], first[one]), angle[one])
        assert torch.equal(together[one], alone)


def drawn(monkeypatch, **settings) -> dict[str, np.ndarray]:
    """The factors, orders and angles that 20,000 images are given."""
    seen: dict[str, np.ndarray] = {}
    whole = augmentation(**settings)

    def jitter(x, brightness, contrast, contrast_first):
        seen.update(brightness=brightness.numpy(), contrast=contrast.numpy(), first=contrast_first.numpy())
        return x

    def rotate(x, angle):
        seen.update(angle=angle.numpy())
        return x

    monkeypatch.setattr(whole, "jitter", jitter)
    monkeypatch.setattr(whole, "rotate", rotate)
    whole(torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), random_stream(1, "augment"))
    return seen


def test_factors_and_angles_are_uniform_in_their_ranges_and_independent(monkeypatch):
    seen = drawn(monkeypatch, brightness=0.3, contrast=0.2, rotation=7.0)
    for values, low, high in (
        (seen["brightness"], 0.7, 1.3),
        (seen["contrast"], 0.8, 1.2),
        (seen["angle"], 0, 1_401),
    ):
        assert values.min() >= np.float32(low)
        assert values.max() <= np.float32(high)
        counts, _ = np.histogram(values, 10, (low, high))
        assert np.abs(counts - 2_000).max() < 5 * np.sqrt(2_000)
    assert seen["angle"].max() == 1_400
    assert seen["angle"].min() == 0
    assert abs(seen["first"].mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    correlations = np.corrcoef(np.stack([seen[k] for k in ("brightness", "contrast", "first", "angle")]))
    assert np.abs(correlations - np.eye(4)).max() < 5 / np.sqrt(20_000)


def test_a_setting_leaves_the_draws_of_the_others_alone(monkeypatch):
    with_all = drawn(monkeypatch)
    assert np.array_equal(drawn(monkeypatch, contrast=0.5)["angle"], with_all["angle"])
    without_jitter = drawn(monkeypatch, brightness=0, contrast=0)
    assert np.array_equal(without_jitter["angle"], with_all["angle"])


# ---- batches


@given(n=st.integers(1, 200), size=st.integers(1, 70), seed=st.integers(0, 5), chunk=st.sampled_from([1, 40, 2_048]))
def test_an_epoch_holds_every_image_once_with_its_label(n, size, seed, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_module, "CHUNK", chunk)
        epoch = tiny.an_epoch(n, size, seed)
    labels = torch.cat([y for _, y in epoch])
    assert sorted(labels.tolist()) == list(range(n))
    pixels = torch.cat([x[:, 0, 0, 0] for x, _ in epoch])
    assert torch.equal(pixels.argsort(stable=True), labels.argsort(stable=True))
    sizes = [len(y) for _, y in epoch]
    assert all(s == size for s in sizes[:-1])
    assert sizes[-1] <= size + (size > 1)


@given(n=st.integers(2, 200), size=st.integers(2, 70))
def test_no_batch_holds_a_single_image_where_batch_norms_need_two(n, size):
    assert all(len(y) > 1 for _, y in tiny.an_epoch(n, size))


def test_an_epoch_is_shuffled_and_the_same_seed_shuffles_the_same():
    first, again, other = (torch.cat([y for _, y in tiny.an_epoch(200, 32, seed)]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(200))


@given(n=st.integers(0, 50), size=st.integers(1, 20))
def test_evaluation_batches_hold_the_split_in_order(n, size):
    split = Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.arange(n))
    found = list(batches(split, torch.tensor([0.0]), torch.tensor([1.0]), size))
    assert [i for _, y in found for i in y.tolist()] == list(range(n))
    assert all(len(x) == len(y) <= size for x, y in found)


# ---- random streams


def test_every_seed_purpose_and_epoch_draws_numbers_of_its_own():
    keys = [(s, p, e) for s in (0, 1, 2**40) for p in ("order", "augment", "dropout") for e in (0, 1)]
    draws = Counter(random_stream(*key).integers(2**62) for key in keys)
    assert max(draws.values()) == 1
    assert all(random_stream(*key).integers(2**62) in draws for key in keys)
