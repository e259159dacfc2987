"""One data set's part of the page: its verdict, arms, curves, lambdas, studies, weights and mistakes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.conclusions import Conclusions, conclusions
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.results import DataIdentity
from reg_sweep.comparison.sentences import (
    commands,
    compared,
    count,
    counts,
    heading,
    margin,
    n_corrected,
    points,
    split_over,
    tally,
    verdict,
    words,
)
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.figures.architecture import N_BLOCKS, architecture, blocks
from reg_sweep.report.figures.theme import DASHES, Picture
from reg_sweep.report.rows import ArmRow, arm_rows, setting_names, strip_ends, tone
from reg_sweep.report.sections.curves import CurvesSection, curves_section
from reg_sweep.report.sections.environment import EnvironmentSection, environment_section
from reg_sweep.report.sections.environment import warning as environment_warning
from reg_sweep.report.sections.forest import ForestSection, forest_section
from reg_sweep.report.sections.interim import InterimSection, interim_section
from reg_sweep.report.sections.lambdas import LambdasSection, lambdas
from reg_sweep.report.sections.mistakes import MistakesSection, mistakes_section
from reg_sweep.report.sections.outlook import OutlookSection, outlook_section
from reg_sweep.report.sections.study import (
    N_STUDIES,
    StudySection,
    judging_command,
    note_on_best,
    study_section,
)
from reg_sweep.report.sections.weights import WeightsSection, weights_section
from reg_sweep.stats.verdict import Tone


@dataclass(frozen=True)
class LegendEntry:
    """A coloured arm: its place among them, and its line as SVG's stroke-dasharray."""

    slot: int
    label: str
    dash: str


@dataclass(frozen=True)
class LayerTable:
    """A network's layers as text: a cell for each heading in each row."""

    headings: list[str]
    rows: list[list[str]]
    picture: Picture | None


@dataclass(frozen=True)
class DataSection:
    """Everything that the page shows of one comparison.

    `headings` are those of the metrics' columns, each with its unit; `unit` is that of a difference. Without images,
    `setting_names` head the columns of another program's settings. `commands` train the runs that the verdict lacks,
    as `to_do` says. `tone` is the verdict's colour, `n_grey` counts the arms without a colour, `n_corrected` the arms
    that share the error; `margin` is empty where none was given.
    `curves`, `lambdas`, `weights` and `mistakes` are None where no run is complete, `forest` and `outlook` where no arm
    shares a seed with the baseline.
    """

    id: str
    finding: str
    evidence: str
    to_do: str
    commands: list[str]
    tally: str
    compared: str
    tone: Tone
    data: DataIdentity
    label: str
    notes: list[str]
    has_images: bool
    headings: list[tuple[str, str]]
    setting_names: list[str]
    unit: str
    is_paired: bool
    margin: str
    n_corrected: int
    n_looks: int
    split_over: str
    variance: str
    n_seeds: int
    n_trials: int
    counts: str
    n_runs: str
    rows: list[ArmRow]
    strip_ends: list[str]
    forest: ForestSection | None
    n_pruned_arms: int
    studies: list[StudySection]
    n_studies_left_out: int
    legend: list[LegendEntry]
    n_grey: int
    held_fixed: list[tuple[str, Any]]
    selected_on: str
    n_parameters: int | None
    layers: LayerTable | None
    curves: CurvesSection | None
    lambdas: LambdasSection | None
    weights: WeightsSection | None
    mistakes: MistakesSection | None
    outlook: OutlookSection | None
    environment: EnvironmentSection | None
    interims: list[InterimSection]
    conclusions: Conclusions

    @property
    def evidence_names(self) -> dict[str, str]:
        """The text of a conclusion's link, by the part of the page it leads to."""
        return {"arms": "the table", "curves": "the curves", "weights": "the weights"}

    @property
    def pictures(self) -> list[Picture]:
        """All pictures to be written: those on the page, and those that are only files."""
        return [
            *(picture for study in self.interims for picture in study.pictures),
            *(picture for study in self.studies for picture in study.pictures),
            *([self.forest.picture] if self.forest is not None else ()),
            *((self.layers.picture,) if self.layers is not None and self.layers.picture is not None else ()),
            *(self.curves.pictures if self.curves is not None else ()),
            *(self.lambdas.pictures if self.lambdas is not None else ()),
            *(self.weights.all_pictures if self.weights is not None else ()),
            *((*self.mistakes.pictures, *self.mistakes.file_pictures) if self.mistakes is not None else ()),
        ]


def data_section(
    number: int, comparison: Comparison, studies: list[StudyRuns], folder: Path, problems: list[str]
) -> DataSection:
    """The section of the `number`th comparison, counted from 1, and of its studies, in a page in `folder`."""
    interims = [interim_section(s) for s in studies if s.study.design is not None]
    studies = [s for s in studies if s.study.design is None]
    canvas, (finding, evidence) = Canvas(number, comparison), verdict(comparison)
    best, is_measured = comparison.best, bool(comparison.measured)
    environment = environment_section(comparison)
    warnings = [environment_warning(environment), *(note_on_best(s, comparison) for s in studies[:N_STUDIES])]
    to_train = commands(comparison)
    if not is_measured and comparison.trials:
        to_train = [command for s in studies if (command := judging_command(s))]
    return DataSection(
        id=canvas.id,
        finding=finding,
        evidence=evidence,
        to_do="Train more seeds" if is_measured else "Judge what was found on seeds that chose nothing",
        commands=to_train,
        tally=tally(comparison),
        compared=compared(comparison) if is_measured else "",
        tone="" if best is None else tone(best),
        data=comparison.data,
        label=comparison.label,
        notes=[*notes(comparison), *filter(None, warnings)],
        has_images=comparison.has_images,
        headings=[(heading(metric), "%" if points(metric) else "") for metric in comparison.metrics],
        setting_names=setting_names(comparison),
        unit=_unit(comparison),
        is_paired=comparison.judgement is None or comparison.judgement.pairing == "seeds",
        margin=margin(comparison),
        n_corrected=n_corrected(comparison),
        n_looks=comparison.n_looks,
        split_over=split_over(comparison),
        variance=comparison.variance,
        n_seeds=comparison.n_seeds,
        n_trials=len(comparison.trials),
        counts=counts(comparison.n_by_status),
        n_runs=count(comparison.n_by_status.total(), "run"),
        rows=arm_rows(comparison, canvas),
        strip_ends=strip_ends(comparison),
        forest=forest_section(comparison, canvas),
        n_pruned_arms=len(comparison.arms) - len(comparison.listed),
        studies=[study_section(s, folder) for s in studies[:N_STUDIES]],
        n_studies_left_out=max(len(studies) - N_STUDIES, 0),
        legend=[LegendEntry(slot, arm.label, _css_dash(slot)) for slot, arm in enumerate(canvas.coloured)],
        n_grey=len(comparison.measured) - len(canvas.coloured),
        held_fixed=_held_fixed(comparison),
        selected_on=comparison.selected_on,
        n_parameters=_n_parameters(comparison),
        layers=_layers(comparison, canvas),
        curves=curves_section(comparison, canvas) if is_measured else None,
        lambdas=lambdas(comparison, canvas) if is_measured else None,
        weights=weights_section(comparison, canvas, problems) if is_measured and comparison.has_images else None,
        mistakes=mistakes_section(comparison, canvas, problems) if is_measured and comparison.has_images else None,
        outlook=outlook_section(comparison, canvas, problems),
        environment=environment,
        interims=interims,
        conclusions=conclusions(comparison),
    )


def _unit(comparison: Comparison) -> str:
    """The unit of a difference, in words."""
    what = words(comparison.metric).removeprefix("test ") if comparison.has_images else words(comparison.metric)
    return f"points of {what}" if points(comparison.metric) else what


def _held_fixed(comparison: Comparison) -> list[tuple[str, Any]]:
    held = comparison.held_fixed.items()
    return [(k, "none" if v is None else v) for k, v in held if k not in ("l1", "l2")]


def _n_parameters(comparison: Comparison) -> int | None:
    """The number of parameters of the networks; None where they differ."""
    sizes = {r.n_parameters for a in comparison.measured for r in a.replicates}
    return sizes.pop() if len(sizes) == 1 else None


def _layers(comparison: Comparison, canvas: Canvas) -> LayerTable | None:
    """The network's layers from the baseline's record, with a picture if they are few enough."""
    layers = comparison.baseline.replicates[0].layers if comparison.baseline is not None else []
    if not layers:
        return None
    headings = [key.replace("_", " ") for key in layers[0]]
    parts = blocks(layers)
    picture = None
    if len(parts) <= N_BLOCKS:
        described = "; ".join(f"{' + '.join(b.kinds)}, {' × '.join(map(str, b.output))}" for b in parts)
        caption = "As high as the output's side (logarithmic), as wide as it has channels; blue learns. "
        caption += "'Sees' is the receptive field, a side in input pixels."
        draw = partial(architecture, parts)
        picture = canvas.picture("architecture", draw, f"The network's blocks: {described}.", caption, wide=True)
    return LayerTable(headings, [[_cell(value) for value in layer.values()] for layer in layers], picture)


def _cell(value: object) -> str:
    return " × ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _css_dash(slot: int) -> str:
    """A line style as SVG's stroke-dasharray, at the width that the legend draws."""
    dash = DASHES[slot]
    return "none" if dash == "solid" else " ".join(f"{2 * d:g}" for d in dash[1])
