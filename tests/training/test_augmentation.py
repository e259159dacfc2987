"""Batched augmentation compared with torchvision's on single images; batches, shuffled and in order."""

import random
from itertools import product

import numpy as np
import own
import pytest
import reference
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.training import augmentation as augmentation_module
from reg_sweep.training.augmentation import Augmentation, batches, n_train_batches, rotation_table
from reg_sweep.training.data import Split
from reg_sweep.training.data_parallel import DataParallel
from reg_sweep.training.fit import fit
from reg_sweep.training.ranks import Ranks
from reg_sweep.training.rng import generator

CPU = torch.device("cpu")


# ---- augmentation

FACTORS = st.floats(0, 2, width=32)


def augmentation(channels: int = 0, **settings) -> Augmentation:
    loaded = tiny.tiny_data(channels=channels)
    return Augmentation(tiny.tiny_data_config(channels=channels, **settings), loaded, CPU)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, C) uint8 -> (1, C, H, W) float32, with unchanged pixel values."""
    return torch.from_numpy(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1).copy())[None].float()


@st.composite
def pictures(draw, channels: int):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    low = draw(st.integers(0, 254))
    high = draw(st.integers(low + 1, 256))
    return rng.integers(low, high, (20, 20, channels) if channels else (20, 20), dtype=np.uint8)


@pytest.mark.slow
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
    """Tries every pixel value with factors as they are drawn, which would show a different rounding."""
    rng = np.random.default_rng(0)
    image = np.arange(256, dtype=np.uint8)[:, None]
    factors = torch.from_numpy(1 + 0.1 * (2 * rng.random((2, 2_000), dtype=np.float32) - 1))
    contrast_first = torch.arange(2_000) % 2 == 0
    jitter = augmentation().jitter
    found = jitter(to_tensor(image).repeat(2_000, 1, 1, 1), *factors, contrast_first)
    for i in range(2_000):
        expected = reference.jitter(image, *factors[:, i].tolist(), contrast_first=bool(contrast_first[i]))
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
    found = plain(loaded.train.images[:9], generator(0, "augment"))
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
    """The factors, orders and angles drawn for 20,000 images."""
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
    whole(torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), generator(1, "augment"))
    return seen


def test_factors_and_angles_are_uniform_in_their_ranges_and_independent(monkeypatch):
    seen = drawn(monkeypatch, brightness=0.3, contrast=0.2, rotation=7.0)
    for name, low, high in (("brightness", 0.7, 1.3), ("contrast", 0.8, 1.2), ("angle", 0, 1_401)):
        assert np.float32(low) <= seen[name].min() <= seen[name].max() <= np.float32(high)
        counts, _ = np.histogram(seen[name], 10, (low, high))
        assert np.abs(counts - 2_000).max() < 5 * np.sqrt(2_000)
    assert (seen["angle"].min(), seen["angle"].max()) == (0, 1_400)
    assert abs(seen["first"].mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    correlations = np.corrcoef(np.stack([seen[k] for k in ("brightness", "contrast", "first", "angle")]))
    assert np.abs(correlations - np.eye(4)).max() < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("settings", [{"contrast": 0.5}, {"brightness": 0, "contrast": 0}])
def test_a_setting_leaves_the_draws_of_the_others_alone(settings, monkeypatch):
    assert np.array_equal(drawn(monkeypatch, **settings)["angle"], drawn(monkeypatch)["angle"])


# ---- batches


@given(n=st.integers(1, 200), size=st.integers(1, 70), seed=st.integers(0, 5), chunk=st.sampled_from([1, 40, 2_048]))
def test_an_epoch_holds_every_image_once_with_its_label(n, size, seed, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentation_module, "CHUNK", chunk)
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


@pytest.mark.parametrize("n_ranks", [2, 3])
@pytest.mark.parametrize("is_moved", [False, True])
def test_the_parts_of_a_batch_are_to_the_last_bit_those_of_the_whole(n_ranks, is_moved, monkeypatch):
    monkeypatch.setattr(augmentation_module, "CHUNK", 80)
    made = augmentation(3, crop=2, flip=0.5, transforms=RECIPE) if is_moved else augmentation(3)

    def epoch(**part_of):
        streams = [generator(1, purpose) for purpose in ("order", "augment")]
        moves = generator(1, "move") if is_moved else None
        return list(made.batches(tiny.tiny_data(channels=3).train, 36, *streams, **part_of, moves=moves))

    parallels = [DataParallel(torch.nn.Identity(), Ranks(r, n_ranks), 36, CPU) for r in range(n_ranks)]
    ranks = [epoch(part_of=parallel.part) for parallel in parallels]
    for (x, y, whole), *parts in zip(epoch(), *ranks, strict=True):
        assert whole == (0, len(x), len(x), 1.0)
        for x_part, y_part, part in parts:
            assert part.n == len(x)
            assert torch.equal(x_part, x[part.start : part.stop])
            assert torch.equal(y_part, y[part.start : part.stop])


@given(n=st.integers(0, 50), size=st.integers(1, 20))
def test_evaluation_batches_hold_the_split_in_order(n, size):
    split = Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.arange(n))
    found = list(batches(split, torch.tensor([0.0]), torch.tensor([1.0]), size))
    assert [i for _, y in found for i in y.tolist()] == list(range(n))
    assert all(len(x) == len(y) <= size for x, y in found)


@given(n=st.integers(1, 300), size=st.integers(1, 70))
def test_the_number_of_batches_is_that_of_the_augmentation(n, size):
    assert n_train_batches(n, size) == len(tiny.an_epoch(n, size))


# ---- crop, flip and custom transforms


def moved(n: int = 64, seed: int = 0, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of colour images before and after crop, flip and transforms."""
    made = augmentation(3, **{"rotation": 0, "brightness": 0, "contrast": 0, **settings})
    images = tiny.tiny_data(channels=3).train.images[:n]
    split, order = Split(images, torch.arange(n)), generator(seed, "order")
    (x, y, _), *_ = made.batches(split, n, order, generator(seed, "augment"), moves=generator(seed, "move"))
    return images[y].float(), ((x + made._shift) / made._scale).round()


def places(padded: torch.Tensor, cut: torch.Tensor) -> list[tuple[int, int]]:
    """Where in a padded image it was cut out."""
    return [(i, j) for i, j in product(range(5), range(5)) if torch.equal(padded[:, i : i + 20, j : j + 20], cut)]


def test_a_crop_is_one_of_those_that_torchvision_cuts_and_all_of_them_come():
    before, after = moved(n=240, crop=2, fill=9)
    padded = F.pad(before, (2, 2, 2, 2), value=9.0)
    found = [places(image, cut) for image, cut in zip(padded, after, strict=True)]
    assert all(found)
    assert len({at[0] for at in found}) == 25


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_a_share_of_the_images_is_mirrored(flip):
    before, after = moved(n=240, flip=flip, crop=0)
    flipped = [torch.equal(a.flip(2), b) for a, b in zip(before, after, strict=True)]
    assert all(is_flipped or torch.equal(a, b) for a, b, is_flipped in zip(before, after, flipped, strict=True))
    assert np.mean(flipped) == pytest.approx(flip, abs=0.1)
    assert torch.equal(after, moved(n=240, flip=flip)[1])
    assert flip in (0, 1) or not torch.equal(after, moved(n=240, flip=flip, seed=1)[1])


V2 = "torchvision.transforms.v2."
RECIPE = [
    {"_target_": V2 + "RandomCrop", "size": 20, "padding": 2},
    {"_target_": V2 + "RandomApply", "transforms": [{"_target_": V2 + "RandomHorizontalFlip", "p": 1.0}], "p": 0.5},
    {"_target_": V2 + "ToDtype", "dtype": {"_target_": "own.float32"}, "scale": True},
]


def test_ones_own_transforms_are_drawn_for_each_image_by_the_seed_alone():
    before, after = moved(transforms=RECIPE)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = moved(transforms=RECIPE)[1]
    assert torch.equal(after, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(after, moved(transforms=RECIPE, seed=1)[1])
    padded = F.pad(before, (2, 2, 2, 2))
    found = set()
    for image, cut in zip(padded, after, strict=True):
        found |= {(*place, 0) for place in places(image, cut)} | {(*place, 1) for place in places(image, cut.flip(2))}
    assert len(found) > 10


@pytest.mark.parametrize("of", ["torch", "numpy", "python"])
def test_transforms_may_draw_from_any_global_generator_and_write_into_their_image(of):
    def states() -> list[str]:
        return [str(torch.get_rng_state()), str(np.random.get_state()), str(random.getstate())]  # noqa: NPY002

    kept = tiny.tiny_data(channels=3).train.images.clone()
    before, after = moved(transforms=[own.spec("coin", of=of)])
    inverted = [torch.equal(255 - a, b) for a, b in zip(before, after, strict=True)]
    assert 10 < sum(inverted) < 54
    assert all(is_inverted or torch.equal(a, b) for a, b, is_inverted in zip(before, after, inverted, strict=True))
    assert torch.equal(tiny.tiny_data(channels=3).train.images, kept)
    random.seed(5), np.random.seed(5)  # noqa: NPY002
    found = states()
    assert torch.equal(moved(transforms=[own.spec("coin", of=of)])[1], after)
    assert states() == found


def test_what_a_transform_draws_when_it_is_made_is_the_same_each_time():
    tables = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        tables.append(moved(transforms=[own.spec("shuffled_values")])[1])
    assert torch.equal(*tables)


def test_a_transform_with_weights_of_its_own_takes_no_part_in_the_training():
    run = tiny.tiny_run(data=tiny.tiny_data_config(transforms=[own.spec("Graded")]))
    assert fit(run, progress=False).status == "complete"


def odd(what: str) -> dict:
    return own.spec("odd_transform", what=what)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"_target_": V2 + "Nothing"}, "data.transforms._target_ must be importable"),
        ({"_target_": V2 + "RandomCrop", "width": 3}, "must take the arguments of their config"),
        ({"_target_": V2 + "Resize", "size": 9}, r"of the same shape \(3, 20, 20\), got \(3, 9, 9\)"),
        ({"_target_": "own.normalized"}, "must return pixels, uint8 or from 0 to 1, got torch.float32"),
        ({"_target_": V2 + "Normalize", "mean": [0], "std": [1]}, "got 'Normalize': Input tensor should"),
        ({"_target_": V2 + "ToPILImage"}, "of the same shape .*, got Image"),
        (odd("complex"), "floats from 0 to 1, got torch.complex64"),
        (odd("sparse"), "return dense images on the CPU"),
        (odd("meta"), "return dense images on the CPU"),
        (odd("KeyError"), r"KeyError: 'k' \(own.py, line \d+\)"),
        (odd("SystemExit"), "SystemExit: no"),
        (odd("nothing"), "must take the arguments .* KeyError: 'nothing'"),
    ],
)
def test_a_transform_that_does_not_go_with_the_images_is_one_line(transform, message):
    with pytest.raises(ConfigError, match=message) as error:
        augmentation(3, transforms=[transform])
    assert "\n" not in str(error.value)


def test_a_crop_beyond_the_images_is_refused():
    with pytest.raises(ConfigError, match=r"data.crop must be at most the images' side \(20\), got 21"):
        augmentation(3, crop=21)
