"""Splits and their statistics, the offline sample as a replacement for MNIST, and custom sources."""

import dataclasses
import logging
import random

import idx_files
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep import images as images_module
from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.config.schema import DataConfig
from reg_sweep.images import Images, check_split
from reg_sweep.training import data as data_module
from reg_sweep.training.data import Split, load_data


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(data_module, "_loaded", {})
    monkeypatch.setattr(data_module, "_prepared", {})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    return idx_files.without_network(monkeypatch)


# ---- real images and the offline sample


@pytest.mark.mnist
def test_real_mnist_has_its_known_mean_std_and_split(mnist_root):
    loaded = load_data(DataConfig(root=str(mnist_root)))
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (50_000, 10_000, 10_000)
    assert loaded.facts()["source"] == "local copy"
    whole = load_data(DataConfig(root=str(mnist_root), val_size=0))
    assert whole.mean.item() == pytest.approx(0.1307, abs=5e-5)
    assert whole.std.item() == pytest.approx(0.3081, abs=5e-5)
    assert len(whole.val) == 0


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


def test_sizes_shrink_with_the_offline_sample_but_val_never_to_nothing(tmp_path):
    small = load_data(DataConfig(root=str(tmp_path), val_size=3, train_size=100))
    assert (len(small.train), len(small.val)) == (100, 1)
    most = load_data(DataConfig(root=str(tmp_path), val_size=10_000, train_size=50_000))
    assert (len(most.train), len(most.val)) == (3_333, 667)
    assert len(load_data(DataConfig(root=str(tmp_path), val_size=0)).val) == 0


def test_without_the_offline_sample_data_out_of_reach_is_one_line_of_error(tmp_path):
    with pytest.raises(DataError) as error:
        load_data(DataConfig(root=str(tmp_path), offline_sample=False))
    assert "MNIST is not under data.root" in str(error.value)
    assert "\n" not in str(error.value)
    load_data(DataConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match="MNIST is not under"):  # also if an earlier run fell back to the sample
        load_data(DataConfig(root=str(tmp_path), offline_sample=False))


# ---- splits


def bytes_of(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images]


@given(val_size=st.integers(0, 290), seed=st.integers(0, 3), n_classes=st.integers(1, 10))
def test_train_and_val_part_the_images_and_each_keeps_every_classs_share(val_size, seed, n_classes):
    loaded = tiny.tiny_data(val_size=val_size, split_seed=seed, n_classes=n_classes)
    whole = tiny.tiny_data(val_size=0, n_classes=n_classes)
    assert len(loaded.val) == val_size
    assert sorted(bytes_of(loaded.train) + bytes_of(loaded.val)) == sorted(bytes_of(whole.train))
    in_all, in_val = (np.bincount(labels, minlength=n_classes) for labels in (whole.train.labels, loaded.val.labels))
    assert (np.abs(in_val - in_all * val_size / 300) < 1).all()


def test_each_image_keeps_its_label():
    images = tiny.tiny_images("")
    label_of = dict(zip(map(bytes, images.train_images), images.train_labels, strict=True))
    loaded = tiny.tiny_data(train_size=100)
    for split in (loaded.train, loaded.val):
        assert [label_of[image] for image in bytes_of(split)] == split.labels.tolist()


@given(train_size=st.integers(1, 240))
def test_a_train_subset_is_stratified_and_leaves_val_as_it_was(train_size):
    part, whole = tiny.tiny_data(train_size=train_size), tiny.tiny_data()
    assert len(part.train) == train_size
    assert torch.equal(part.val.images, whole.val.images)
    assert set(bytes_of(part.train)) <= set(bytes_of(whole.train))
    counts = np.bincount(part.train.labels, minlength=10)
    assert counts.max() - counts.min() <= 1


def test_another_split_seed_draws_another_val_and_the_same_one_the_same():
    first, again, other = (tiny.tiny_data(split_seed=s) for s in (0, 0, 1))
    assert torch.equal(first.val.images, again.val.images)
    assert set(bytes_of(first.val)) != set(bytes_of(other.val))


@given(share=st.floats(0, 1))
def test_label_noise_replaces_its_exact_share_of_train_labels_and_no_others(share):
    clean, noisy, again = tiny.tiny_data(), tiny.tiny_data(label_noise=share), tiny.tiny_data(label_noise=share)
    assert (clean.train.labels != noisy.train.labels).sum() == round(share * 240)
    assert torch.equal(noisy.train.labels, again.train.labels)
    assert 0 <= noisy.train.labels.min() <= noisy.train.labels.max() <= 9
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


# ---- mean, std, fingerprint


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
    splits = [{}, {"val_size": 0}, {"split_seed": 5}, {"label_noise": 0.5}, {"train_size": 50}]
    assert len({tiny.tiny_data(**settings).fingerprint for settings in splits}) == 1


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_the_fingerprint_changes_with_any_value(part):
    images = idx_files.small_set()
    before = data_module._fingerprint(images)
    getattr(images, part).ravel()[-1] += 1
    assert data_module._fingerprint(images) != before


def test_the_fingerprint_knows_shapes_apart():
    images = idx_files.small_set()
    turned = Images(images.train_images.reshape(50, 14, 56), *list(vars(images).values())[1:4])
    assert data_module._fingerprint(images) != data_module._fingerprint(turned)


# ---- cache


def test_a_second_run_reads_no_file_and_another_split_reads_none_either(tmp_path, monkeypatch):
    idx_files.write_idx(tmp_path, "MNIST", known=monkeypatch)
    config = DataConfig(root=str(tmp_path), val_size=10)
    first = load_data(config)
    monkeypatch.setattr(images_module, "_read_idx", None)
    assert load_data(DataConfig(root=str(tmp_path), val_size=10)) is first
    assert len(load_data(DataConfig(root=str(tmp_path), val_size=20)).val) == 20


def test_a_relative_root_is_another_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    for name in ("one", "two"):
        idx_files.write_idx(tmp_path / name, "MNIST", known=monkeypatch)
    monkeypatch.chdir(tmp_path / "one")
    first = load_data(DataConfig(root=".", val_size=10))
    monkeypatch.chdir(tmp_path / "two")
    assert load_data(DataConfig(root=".", val_size=10)) is not first


# ---- a custom source


def own_source(root: str, fault: str = "") -> object:
    images = tiny.tiny_images(root)
    x, y, test_x, test_y = images.train_images, images.train_labels, images.test_images, images.test_labels
    changes: dict[str, dict] = {
        "": {},
        "floats": {"train_images": x / 255},
        "flat": {"train_images": x.reshape(len(x), -1)},
        "a list": {"train_images": x.tolist()},
        "tensors": {"train_images": torch.from_numpy(x)},
        "too few labels": {"train_labels": y[:-1]},
        "negative labels": {"train_labels": y - 1},
        "labels as floats": {"train_labels": y.astype(float)},
        "labels as a list": {"train_labels": y.tolist()},
        "no test images": {"test_images": test_x[:0], "test_labels": test_y[:0]},
        "channels first": {"train_images": x[:, None], "test_images": test_x[:, None]},
        "labels from 1": {"train_labels": y + 1, "test_labels": test_y + 1},
        "another size": {"test_images": test_x[:, 1:]},
    }
    return (x, y, test_x, test_y) if fault == "no Images" else dataclasses.replace(images, **changes[fault])


def load_own(fault: str):
    return load_data(DataConfig(source={"_target_": f"{__name__}.own_source", "fault": fault}, val_size=50))


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
        ("channels first", r"channels last, \(N, H, W, C\), got them first, in \(300, 1, 20, 20\): .*\(0, 2, 3, 1\)"),
        ("labels from 1", "labels counted from 0, got none below 1: subtract 1 in all splits"),
        ("another size", r"test_images of the train images' shape \(20, 20\), got \(19, 20\)"),
    ],
)
def test_what_a_users_own_source_got_wrong_is_one_line(fault, message):
    with pytest.raises(DataError, match=message) as error:
        load_own(fault)
    assert "\n" not in str(error.value)


def shuffled(root: str) -> Images:
    images = tiny.tiny_images(root)
    order = np.random.permutation(300)  # noqa: NPY002
    random.shuffle(order)
    order = order[torch.randperm(300).numpy()]
    return dataclasses.replace(images, train_images=images.train_images[order], train_labels=images.train_labels[order])


def test_a_source_that_draws_gives_the_same_images_each_time():
    def fingerprint(seed: int) -> str:
        data_module._loaded.clear(), data_module._prepared.clear()
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002
        found = load_data(DataConfig(source={"_target_": f"{__name__}.shuffled"}, val_size=50)).fingerprint
        assert random.random() == random.Random(seed).random()
        return found

    assert fingerprint(1) == fingerprint(2)


@pytest.mark.parametrize("target", ["no_such_module.load", "tiny.no_such_function", "tiny.SIDE"])
def test_a_source_that_can_not_be_called_is_a_config_error(target):
    with pytest.raises(ConfigError, match=r"data.source._target_ must be .*, got"):
        load_data(DataConfig(source={"_target_": target}))


# ---- a source's own val images, names and labels


def with_val(root: str, n_val: int = 20) -> Images:
    images = tiny.tiny_images(root)
    return dataclasses.replace(
        images,
        val_images=255 - images.train_images[:n_val],
        val_labels=images.train_labels[:n_val],
        class_names=tuple(f"kind {i}" for i in range(12)),
    )


def test_a_sources_own_val_images_are_used_where_val_size_is_null_and_are_part_of_the_fingerprint(caplog):
    source = {"_target_": f"{__name__}.with_val"}
    data = load_data(tiny.tiny_data_config(source=source, val_size=None))
    assert (len(data.train), len(data.val), data.n_classes) == (300, 20, 12)
    assert torch.equal(data.val.images, 255 - data.train.images[:20])
    assert data.facts()["class_names"][11] == "kind 11"
    assert data.fingerprint != tiny.tiny_data().fingerprint
    with caplog.at_level("INFO"):
        held_out = load_data(tiny.tiny_data_config(source=source))
    assert (len(held_out.train), len(held_out.val)) == (240, 60)
    assert "the source's own 20 val images are not used: set data.val_size=null to use them" in caplog.text
    assert "2 of the 12 classes have no train image: [10, 11]" in caplog.text


def test_val_size_null_without_val_images_is_one_line():
    with pytest.raises(ConfigError, match="val_size must be a number for a source without val images of its own"):
        load_data(tiny.tiny_data_config(val_size=None))
