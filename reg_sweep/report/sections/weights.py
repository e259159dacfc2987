"""The trained weights: their distribution, the share near zero, dead kernels, and channels that L1 zeroes.

For networks with zero channels: size against score, the norms of channels, and the layers before and after.
"""

import shlex
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import DASH, heading, is_known, points
from reg_sweep.config.schema import NEAR_ZERO
from reg_sweep.report.canvas import Canvas, seeds_text
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures import networks
from reg_sweep.report.figures.theme import Picture
from reg_sweep.runs.arrays import read_weights
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.runs.record import RecordError

Array = NDArray[Any]
N_LAYERS = 6  # panels that fit beside one another


@dataclass(frozen=True)
class KernelRow:
    """An arm's kernels: 'dead / all' of each layer."""

    label: str
    slot: int
    cells: list[str]


@dataclass(frozen=True)
class ChannelRow:
    """An arm's live channels: '4 of 16' in each layer, and its multiply-adds as text."""

    label: str
    slot: int | None
    cells: list[str]
    multiply_adds: str


@dataclass(frozen=True)
class SizeSection:
    """Pictures, and the table of live output channels by layer. `command` writes the networks without zero channels."""

    pictures: list[Picture]
    layers: list[str]
    rows: list[ChannelRow]
    command: str


@dataclass(frozen=True)
class WeightsSection:
    """Pictures and the table of dead kernels by layer. `n_dead` is the most dead kernels of any coloured arm.

    `size` is about networks whose channels L1 zeroes; None where it zeroes none.
    """

    pictures: list[Picture]
    layers: list[str]
    rows: list[KernelRow]
    n_dead: int
    size: SizeSection | None

    @property
    def all_pictures(self) -> list[Picture]:
        """Those of the weights, and those of the networks' size."""
        return [*self.pictures, *(self.size.pictures if self.size is not None else ())]


@dataclass(frozen=True)
class _Trained:
    """The weights of a coloured arm's first run by layer, biases and norm parameters left out."""

    arm: Arm
    slot: int
    layers: dict[str, Array]

    @property
    def flat(self) -> Array:
        return np.concatenate([w.ravel() for w in self.layers.values()])

    @property
    def kernels(self) -> dict[str, Array]:
        """The largest |w| of each kernel, (out, in), by layer."""
        return {
            name: np.abs(w).reshape(w.shape[0], w.shape[1], -1).max(axis=2)
            for name, w in self.layers.items()
            if w.ndim == 4 and w[0, 0].size > 1  # as in the records: a 1x1 convolution has no kernels
        }


def weights_section(comparison: Comparison, canvas: Canvas, problems: list[str]) -> WeightsSection:
    """The final weights of each coloured arm's first seed; no pictures where no weights are available."""
    trained = []
    for slot, arm in enumerate(canvas.coloured):
        layers = _read_layers(arm.replicates[0], problems)
        if layers:
            trained.append(_Trained(arm, slot, layers))
    if not trained:
        return WeightsSection([], [], [], 0, size_section(comparison, canvas, problems))
    pictures = _spread(canvas, trained)
    kernels = {t.slot: t.kernels for t in trained}
    # The records count dead kernels too, but not by layer.
    dead = {slot: {name: int((k < NEAR_ZERO).sum()) for name, k in layers.items()} for slot, layers in kernels.items()}
    most = max(dead, key=lambda slot: sum(dead[slot].values()))
    n_dead = sum(dead[most].values())
    if n_dead:
        title = f"Dead kernels of {canvas.coloured[most].label}: {n_dead}"
        draw = partial(figures.kernel_map, title, list(kernels[most].items()), NEAR_ZERO)
        pictures.append(canvas.picture("kernels", draw, f"{title}, crossed out, by layer.", wide=True))
    names = list(dict.fromkeys(name for layers in kernels.values() for name in layers))
    rows = [
        KernelRow(
            label=t.arm.label,
            slot=t.slot,
            cells=[f"{dead[t.slot][n]} / {kernels[t.slot][n].size}" if n in kernels[t.slot] else DASH for n in names],
        )
        for t in trained
    ]
    return WeightsSection(pictures, names, rows, n_dead, size_section(comparison, canvas, problems))


def _spread(canvas: Canvas, trained: list[_Trained]) -> list[Picture]:
    arms = [(t.arm.label, t.slot, t.flat) for t in trained]
    zeros = ", ".join(f"{t.arm.label}: {_near_zero(t.arm.replicates[0])} near zero" for t in trained)
    sizes = sorted({w.size for *_, w in arms})
    n_weights = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))
    caption = f"{n_weights} weights of one run of each arm; biases and norm parameters are left out."
    histograms, by_size = partial(figures.histograms, arms), partial(figures.magnitudes, arms, NEAR_ZERO)
    return [
        canvas.picture("weights-histogram", histograms, f"Histograms of the weights. {zeros}.", caption),
        canvas.picture("weights-by-size", by_size, f"Weights sorted by magnitude. {zeros}.", caption),
    ]


def _near_zero(run: Result) -> str:
    share = run.weight_shares.near_zero
    return f"{share:.1%}" if is_known(share) else "not counted"


def _read_layers(run: Result, problems: list[str]) -> dict[str, Array]:
    """A run's weight tensors by layer; empty where there is no file."""
    try:
        return read_weights(run.path) or {}
    except RecordError as error:
        problems.append(str(error))
        return {}


def size_section(comparison: Comparison, canvas: Canvas, problems: list[str]) -> SizeSection | None:
    """Networks after L1 on channels or on scales; None where no run recorded its multiply-adds."""
    sized = [arm for arm in comparison.measured if all(_cost(run.weights) for run in arm.replicates)]
    if not sized or not any(_is_on_groups(arm) for arm in sized):
        return None
    costs = {arm.digest: [_cost(run.weights) for run in arm.replicates] for arm in sized}
    largest = max(max(found) for found in costs.values())
    pictures = [_size_picture(comparison, canvas, sized, costs, largest)]
    channels = {arm.digest: _channels(arm, problems) for arm in sized}
    names = list(dict.fromkeys(name for found in channels.values() for name in found))
    pictures += _paths(canvas, [arm for arm in sized if _is_on_groups(arm)], channels)
    rows = [
        ChannelRow(
            label=arm.label,
            slot=canvas.slot(arm),
            cells=[_cell(channels[arm.digest].get(name)) for name in names],
            multiply_adds=f"{np.mean(costs[arm.digest]):,.0f} ({np.mean(costs[arm.digest]) / largest:.0%})",
        )
        for arm in sized
    ]
    smallest = min(sized, key=lambda arm: float(np.mean(costs[arm.digest])))
    path = shlex.quote(str(smallest.replicates[0].path))
    return SizeSection(pictures, names, rows, f"python -m reg_sweep.compact {path}")


def _cost(weights: Any) -> int:
    return int(weights.get("multiply_adds", 0)) if weights is not None else 0


def _is_on_groups(arm: Arm) -> bool:
    return bool(arm.replicates[0].config["penalty"].get("l1_on", "weights") != "weights")


def _size_picture(
    comparison: Comparison, canvas: Canvas, sized: list[Arm], costs: dict[str, list[int]], largest: int
) -> Picture:
    metric, drawn, said = comparison.metric, [], []
    for arm in sized:
        estimate, found = arm.estimates[metric], np.array(costs[arm.digest]) / largest
        if estimate is not None:
            size = float(found.mean()), float(found.min()), float(found.max())
            drawn.append(networks.SizePoint(arm.label, canvas.slot(arm), size, estimate))
            said.append(f"{arm.label}: {size[0]:.0%}")
    title = "Size against score"
    unit = heading(metric) + (", %" if points(metric) else "")
    draw = partial(networks.size_against_score, title, unit, drawn, is_accuracy=bool(points(metric)))
    caption = f"{seeds_text(sized)}; 95% intervals of the mean, and the range of sizes over the seeds."
    return canvas.picture("size", draw, f"{title}: multiply-adds of {'; '.join(said)}.", caption)


def _paths(canvas: Canvas, arms: list[Arm], channels: dict[str, dict[str, Array]]) -> list[Picture]:
    arms = sorted((arm for arm in arms if channels[arm.digest]), key=lambda arm: float(arm.replicates[0].config["l1"]))
    strengths = [float(arm.replicates[0].config["l1"]) for arm in arms]
    if len(set(strengths)) < 2 or len(set(strengths)) < len(strengths):
        return []
    shapes = [{name: norms.shape for name, norms in channels[arm.digest].items()} for arm in arms]
    names = [name for name in shapes[0] if all(s.get(name) == shapes[0][name] for s in shapes)][:N_LAYERS]
    if not names:
        return []
    layers = {name: np.stack([channels[arm.digest][name] for arm in arms]) for name in names}
    title = "The norm of each channel by the strength of L1"
    labels = [lambda_text(s) for s in strengths]
    draw = partial(networks.channel_paths, title, strengths, labels, layers)
    zeros = "; ".join(f"{n}: {', '.join(str(int((row == 0).sum())) for row in layers[n])}" for n in names)
    caption = (
        "Each arm's first seed. A line joins channels of the same rank; a cross is a channel that is exactly zero."
    )
    return [canvas.picture("channel-norms", draw, f"{title}. Zero channels of {zeros}.", caption, wide=True)]


def _channels(arm: Arm, problems: list[str]) -> dict[str, Array]:
    """The norm of each output channel's weights, by layer, in the arm's first run."""
    layers = _read_layers(arm.replicates[0], problems)
    return {name: np.linalg.norm(w.reshape(w.shape[0], -1), axis=1) for name, w in layers.items() if w.ndim in (2, 4)}


def _cell(norms: Array | None) -> str:
    if norms is None:
        return "–"
    n = int((norms > 0).sum())
    return str(n) if n == norms.size else f"{n} of {norms.size}"
