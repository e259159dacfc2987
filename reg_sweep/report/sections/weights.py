"""The trained weights: their distribution, the share near zero, dead kernels."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import DASH, is_known
from reg_sweep.config.schema import NEAR_ZERO
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.sections.size import SizeSection, size_section
from reg_sweep.runs.arrays import read_weights
from reg_sweep.runs.record import RecordError

Array = NDArray[Any]


@dataclass(frozen=True)
class KernelRow:
    """An arm's kernels: 'dead / all' of each layer."""

    label: str
    slot: int
    cells: list[str]


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
    """The final weights of each coloured arm's first seed; no pictures where no weights are at hand."""
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
    caption = f"{n_weights} weights of one run an arm; biases and norm parameters are left out."
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
