"""The figures of a handout: sized for a page, named by what they show, each with a caption that stands alone."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.predictions import (
    Mistakes,
    Predictions,
    class_names,
    clipped,
    find_test_images,
    mistakes,
    note,
    other_labels,
    read_predictions,
)
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_LOSS
from reg_sweep.comparison.sentences import count, is_known, score, words
from reg_sweep.report.canvas import Canvas, seeds_text
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.arms import Line, SplitCurve
from reg_sweep.report.figures.networks import N_BLOCKS, architecture, blocks, seen
from reg_sweep.report.figures.textbook import contours, cost_functions, costs, penalties
from reg_sweep.report.figures.theme import PRINT_WIDTH, Draw, Picture
from reg_sweep.report.sections.forest import forest_section
from reg_sweep.report.sections.lambdas import lambdas
from reg_sweep.report.sections.weights import weights_section
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.runs.record import Metric, RecordError, Split

N_ARMS = 16  # arms with a line, curves and mistakes of their own
N_WORST = 25
N_BANDS = 4  # arms whose bands over seeds can be told apart

Array = NDArray[Any]


@dataclass(frozen=True)
class HandoutFigures:
    """A comparison's pictures by their place in the text, and why others are missing."""

    method: list[Picture]
    results: list[Picture]
    curves: list[Picture]
    mistakes: list[Picture]
    missing: list[str]

    @property
    def all(self) -> list[Picture]:
        """Every picture, in the order of the text."""
        return [*self.method, *self.results, *self.curves, *self.mistakes]


def shared_figures(forms: Collection[str]) -> list[Picture]:
    """The cost functions of these forms, and why L1 zeroes weights and L2 shrinks them, for every comparison."""
    rows, symbols = costs(forms)
    return [
        _picture(
            "cost-functions",
            partial(cost_functions, rows),
            f"The functions that training minimizes, and how hard each penalty pulls on a weight. {symbols}",
        ),
        _picture(
            "why-l1-zeroes",
            partial(contours, PRINT_WIDTH),
            "Why L1 zeroes weights and L2 does not. Contours of a loss with its minimum at the cross, and the set that "
            "each penalty allows. The loss first touches L1's diamond at a corner, where one weight is exactly 0, and "
            "L2's disc off the axes, where both weights are smaller and neither is 0. The set of both has corners too.",
        ),
        _picture(
            "why-l2-shrinks",
            penalties,
            "Why L2 only shrinks weights. The gradient of L1 has the same size however small the weight is, so weights "
            "that help little reach 0. That of L2 fades with the weight, so weights shrink and do not reach 0.",
        ),
    ]


def figures_of(comparison: Comparison, number: int, prefix: str, problems: list[str]) -> HandoutFigures:
    """The figures of the `number`th comparison, whose names begin with `prefix`."""
    canvas = Canvas(number, comparison)
    missing: list[str] = []
    if not comparison.has_images:
        missing.append("no curves, weights or misclassified images: another program trained these runs")
        return HandoutFigures([], [_renamed(p, prefix) for p in _difference(comparison, canvas)], [], [], missing)
    named = _names(comparison.measured)
    method = list(_architecture(comparison, missing))
    results = [*_all_arms(comparison), *_difference(comparison, canvas), *_lambdas(comparison, canvas)]
    results += _weights(comparison, canvas, problems, missing)
    curves = [_own_curves(arm, n, named[arm.digest]) for n, arm in enumerate(_lines(comparison))]
    wrong = list(_mistakes(comparison, named, problems, missing))
    if len(comparison.measured) > N_ARMS:
        left = len(comparison.measured) - N_ARMS
        missing.append(
            f"{count(left, 'arm')} of {len(comparison.measured)} have no figures of their own: {N_ARMS} have"
        )
    method, results, curves, wrong = ([_renamed(p, prefix) for p in of] for of in (method, results, curves, wrong))
    return HandoutFigures(method, results, curves, wrong, missing)


def shown_mistakes(comparison: Comparison) -> list[Arm]:
    """The arms whose mistakes the text shows: all regularizers together; else L1 alone and L2 alone; else the best."""
    if not comparison.has_images:
        return []
    arms = _lines(comparison)

    def first(l1: bool, l2: bool, *, is_ghost: bool | None = None) -> list[Arm]:
        of = [a for a in arms if ((a.config["l1"] > 0), (a.config["l2"] > 0)) == (l1, l2)]
        return [a for a in of if is_ghost is None or (a.config["norm"]["name"] == "gbn") == is_ghost][:1]

    alone = [*first(True, False), *first(False, True)]
    chosen = first(True, True, is_ghost=True) or alone
    return chosen or [a for a in (comparison.best, comparison.baseline) if a is not None][:1]


def mistakes_name(arm: Arm, comparison: Comparison, prefix: str) -> str:
    """The file's name of an arm's mistakes."""
    return f"{prefix}misclassified-{_names(comparison.measured)[arm.digest]}"


# ---- names


def slug(text: str) -> str:
    """A text as part of a file's name: lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60].strip("-.") or "x"


def _names(arms: Sequence[Arm]) -> dict[str, str]:
    """A name for each arm's files, by digest: 'l1-l2-gbn', with strengths where several arms differ only in them."""
    norms = {str(a.config["norm"]["name"]) for a in arms}

    def name(arm: Arm, *, has_strengths: bool) -> str:
        parts = [
            f"{key}-{lambda_text(arm.config[key])}" if has_strengths else key
            for key in ("l1", "l2")
            if arm.config[key] > 0
        ]
        norm = str(arm.config["norm"]["name"])
        parts += [norm if norm != "none" else "no-norm"] if len(norms) > 1 else [] if parts else ["none"]
        return slug("-".join(parts))

    for found in (
        {a.digest: name(a, has_strengths=False) for a in arms},
        {a.digest: name(a, has_strengths=True) for a in arms},
        {a.digest: slug(a.label) for a in arms},
    ):
        if len(set(found.values())) == len(arms):
            return found
    return {a.digest: f"{slug(a.label)}-{n}" for n, a in enumerate(arms, 1)}


def _picture(name: str, draw: Draw, caption: str) -> Picture:
    return Picture(name, caption, draw, "unused", caption)


def _own_name(picture: Picture) -> str:
    """A page's picture without the prefix of its data set."""
    return re.sub(r"^data\d+-", "", picture.name)


def _renamed(picture: Picture, prefix: str) -> Picture:
    return Picture(f"{prefix}{picture.name}", picture.alt, picture.draw, picture.id, picture.caption)


# ---- method


def _architecture(comparison: Comparison, missing: list[str]) -> Iterator[Picture]:
    base = comparison.baseline
    layers = base.replicates[0].layers if base is not None and base.replicates else []
    parts = blocks(layers)
    if not 0 < len(parts) <= N_BLOCKS:
        why = f"it has more than {N_BLOCKS} blocks" if parts else "no record lists its layers"
        missing.append(f"no picture of the network's architecture: {why}")
        return
    yield _picture(
        "architecture",
        partial(architecture, parts, PRINT_WIDTH),
        "The network, from its first layer on the left to its last on the right. A block is as high as its output's "
        f"side (on a logarithmic scale) and as wide as it has channels; blue blocks have parameters.{seen(parts)}",
    )


# ---- results of all arms


def _lines(comparison: Comparison) -> list[Arm]:
    """The arms with a line of their own, the baseline first."""
    base = comparison.baseline
    return [*([base] if base is not None else []), *(a for a in comparison.measured if a is not base)][:N_ARMS]


def _all_arms(comparison: Comparison) -> Iterator[Picture]:
    """Accuracy and loss of all arms together, on test and, where there are val images, on val."""
    has_val = comparison.data.n_val > 0
    for metric, name in ((TEST_ACCURACY, "accuracy-curves"), (TEST_LOSS, "loss-curves")):
        yield from _curves(comparison, metric, name, has_val=has_val)
        if has_val:
            yield from _curves(comparison, metric.on("val"), f"validation-{name}", has_val=has_val)


def _curves(comparison: Comparison, metric: Metric, name: str, *, has_val: bool) -> Iterator[Picture]:
    arms = _lines(comparison)
    lines = [
        Line(arm.label, slot, *_band(values))
        for slot, arm in enumerate(arms)
        if np.isfinite(values := arm.curves(metric)).any()
    ]
    if not lines:
        return
    others = [_band(arm.curves(metric))[0] for arm in comparison.measured if arm not in arms]
    is_share = metric.unit == "share"
    title, unit = f"{words(metric).capitalize()} by epoch", "accuracy, %" if is_share else "loss (log axis)"
    draw = partial(
        figures.curves,
        title,
        unit,
        lines,
        _stacked(others),
        is_accuracy=is_share,
        width=PRINT_WIDTH,
        height=2.9,
        n_bands=N_BANDS,
    )
    ends = listed([f"{line.label} {score(metric, line.mean[-1], unit=True)}" for line in lines])
    caption = f"{title} of {'all arms' if not others else f'{len(lines)} arms'}: {_over(comparison, arms)}."
    if not has_val and is_share:
        caption += (
            " No images were held out, so the test images also served for validation: these are also the curves of "
            "validation accuracy."
        )
    yield _picture(name, draw, f"{caption} At the last epoch: {ends}.")


def _over(comparison: Comparison, arms: Sequence[Arm]) -> str:
    """'mean of 3 seeds; bands from the lowest to the highest seed'."""
    said = seeds_text(list(arms))
    said = said[:1].lower() + said[1:]
    if all(len(arm.replicates) == 1 for arm in arms):
        return said
    if len(arms) > N_BANDS:
        return f"{said}, whose spread is in each arm's own figure"
    return f"{said}; bands reach from the lowest to the highest seed"


def _band(values: Array) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest of each epoch over the runs (n_runs, n_epochs) that reached it; nan where none did."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    mean = np.where(n > 0, np.where(present, values, 0.0).sum(axis=0) / np.maximum(n, 1), math.nan)
    low, high = np.where(present, values, math.inf).min(axis=0), np.where(present, values, -math.inf).max(axis=0)
    return mean, np.where(n > 0, low, math.nan), np.where(n > 0, high, math.nan)


def _stacked(means: Sequence[Array]) -> Array | None:
    """Curves of several lengths as rows, those without a value left out; None without any."""
    known = [m for m in means if np.isfinite(m).any()]
    if not known:
        return None
    length = min(m.size for m in known)
    return np.stack([m[:length] for m in known])


def _difference(comparison: Comparison, canvas: Canvas) -> Iterator[Picture]:
    section = forest_section(comparison, canvas)
    base = comparison.baseline
    if section is None or base is None:
        return
    caption = f"Each arm's difference from the baseline, {base.label}. {section.caption}"
    yield Picture("differences", section.picture.alt, section.picture.draw, "unused", caption)


def _lambdas(comparison: Comparison, canvas: Canvas) -> Iterator[Picture]:
    """The studies of a lambda and the maps of both; the curves of each lambda come by arm."""
    has_weights = any(is_known(arm.weight_shares.near_zero) for arm in comparison.measured)
    for picture in lambdas(comparison, canvas).pictures:
        name = _own_name(picture)
        found = re.fullmatch(r"study-(l[12])-(\d+)|heat-map-(\d+)", name)
        if found is None:
            continue
        key, number = (found[1], found[2]) if found[1] else ("l1-l2", found[3])
        new = f"lambda-{key}" + (f"-{number}" if number != "1" else "")
        what = " and ".join(key.upper().split("-"))
        below = (
            " Below: shares of the weights near 0 and at 0, and of dead kernels." if found[1] and has_weights else ""
        )
        yield Picture(new, picture.alt, picture.draw, "unused", f"How much {what}. {picture.caption}{below}")


def _weights(comparison: Comparison, canvas: Canvas, problems: list[str], missing: list[str]) -> Iterator[Picture]:
    n, n_drawn = len(comparison.measured), len(canvas.coloured)
    which = "each arm" if n == n_drawn else f"{n_drawn} of {n} arms"
    names = {
        "weights-histogram": ("weights-histogram", f"How the weights of {which} are spread. "),
        "weights-by-size": ("weights-by-size", f"The weights of {which} from the largest to the smallest. "),
        "kernels": ("dead-kernels", ""),
    }
    pictures = weights_section(comparison, canvas, problems).pictures
    if not pictures:
        missing.append("no figures of the weights: the runs' weights.safetensors are not in their folders")
    for picture in pictures:
        new, opening = names.get(_own_name(picture), (_own_name(picture), ""))
        caption = f"{opening}{picture.caption or picture.alt}"
        yield Picture(new, picture.alt, picture.draw, "unused", caption)


# ---- each arm's own


def _own_curves(arm: Arm, slot: int, name: str) -> Picture:
    """Train, val and test accuracy and loss of an arm."""
    splits: tuple[Split, ...] = ("train", "val", "test")

    def of(metric: Metric) -> list[SplitCurve]:
        found = ((split, arm.curves(metric.on(split))) for split in splits)
        return [SplitCurve(split, *_band(v)) for split, v in found if np.isfinite(v).any()]

    accuracy, loss = of(TEST_ACCURACY), of(TEST_LOSS)
    splits_drawn = listed([curve.split for curve in accuracy or loss])
    title = f"{splits_drawn.capitalize()}: {arm.label}"
    ends = listed([f"{curve.split} {score(TEST_ACCURACY, curve.mean[-1], unit=True)}" for curve in accuracy])
    bands = "; bands from the lowest to the highest seed" if len(arm.replicates) > 1 else ""
    caption = (
        f"Accuracy and loss of {arm.label} by epoch, {seeds_text([arm]).lower()}{bands}. Train values are measured "
        f"while training, with dropout and augmentation. Accuracy at the last epoch: {ends}."
    )
    return _picture(f"curves-{name}", partial(figures.of_one_arm, title, accuracy, loss, slot, PRINT_WIDTH), caption)


def _mistakes(
    comparison: Comparison, named: dict[str, str], problems: list[str], missing: list[str]
) -> Iterator[Picture]:
    """Up to 25 misclassified images of each arm, with their actual and predicted labels."""
    read = [(arm, found) for arm in _lines(comparison) if (found := _read(arm, comparison, problems)) is not None]
    if not read:
        missing.append("no misclassified images: the runs' predictions.npz are not in their folders")
        return
    first_arm, first = read[0]
    images, why = find_test_images(first_arm.config, comparison.data.source, first.label, first.index)
    if images is None:
        missing.append(f"no misclassified images: {why}")
        return
    names = class_names(first_arm.config, len(first.confusion), first_arm.replicates[0].class_names)
    classes = [clipped(name) for name in names]
    for arm, m in read:
        if not np.array_equal(m.label, first.label):
            note(problems, other_labels(arm.replicates[0].path))
            continue
        worst = m.worst(N_WORST)
        if not worst.size:
            missing.append(f"no misclassified images of {arm.label}: it classifies every test image correctly")
            continue
        labels = [f"actual {classes[m.label[i]]}\npredicted {classes[m.predicted[i]]}" for i in worst]
        yield _picture(
            f"misclassified-{named[arm.digest]}",
            partial(figures.mistakes, f"Misclassified: {arm.label}", images[worst], labels, PRINT_WIDTH, is_light=True),
            _mistakes_caption(arm, m, int(worst.size), comparison.data.n_test),
        )


def _mistakes_caption(arm: Arm, m: Mistakes, n: int, n_test: int) -> str:
    a_run = m.n_wrong.sum() / m.n_runs
    how = f"on average over its {m.n_runs} runs" if m.n_runs > 1 else "in its one run"
    sure = "averaged over the runs" if m.n_runs > 1 else "highest first"
    return (
        f"The {count(n, 'test image')} that {arm.label} misclassified most confidently, by the probability of the "
        f"wrong class, {sure}; each with its actual and its predicted label. It misclassified {a_run:.0f} of "
        f"{n_test:,} test images {how}."
    )


def _read(arm: Arm, comparison: Comparison, problems: list[str]) -> Mistakes | None:
    """An arm's mistakes, from those of its runs whose predictions can be read; None without any."""
    runs: list[Predictions] = []
    for run in arm.replicates:
        try:
            found = read_predictions(run.path, comparison.data.n_test)
        except RecordError as error:
            note(problems, error)
            continue
        if runs and not np.array_equal(found.label, runs[0].label):
            note(problems, other_labels(run.path))
        else:
            runs.append(found)
    return mistakes(runs) if runs else None
