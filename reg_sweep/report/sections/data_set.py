"""One data set's part of the page: its verdict, arms, curves, lambdas, studies, weights and mistakes."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reg_sweep.comparison.commands import seeds_to_train, sweep_name
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.conclusions import Conclusions, conclusions
from reg_sweep.comparison.insights import error_text
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.sentences import (
    N_NAMED,
    count,
    counts,
    heading,
    level,
    margin,
    n_corrected,
    points,
    shown_arms,
    shown_text,
    split_over,
    tally,
    verdict,
    words,
)
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.report.account import compared
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.figures.networks import N_BLOCKS, architecture, blocks, needs_page, seen
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
    StudySection,
    best_text,
    judged_text,
    judging_commands,
    note_on_best,
    study_section,
)
from reg_sweep.report.sections.weights import WeightsSection, weights_section
from reg_sweep.runs.discovery import real_path
from reg_sweep.stats.verdict import Tone

N_SHOWN = 80  # arms named as better or worse below a finding


@dataclass(frozen=True)
class Shown:
    """The arms with one kind of verdict: its word and colour, how many they are, and the first by name."""

    word: str
    n: int
    tone: Tone
    arms: list[str]

    @property
    def is_more_than_named(self) -> bool:
        """Whether they are more than the finding names."""
        return self.n > N_NAMED

    @property
    def tag(self) -> str:
        """'2 worse', '1 different model'."""
        return f"{self.n:,} {self.word.removesuffix('s') if self.n == 1 else self.word}"


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
    as `to_do` says, and lead to a page of old and new runs. `shown` are the arms that differ, by their verdict.
    `newest` is when the last run ended. `tone` is the verdict's colour, `n_grey` counts the arms without a colour,
    `n_corrected` the arms that share the error; `margin` is empty where none was given.
    `curves`, `lambdas`, `weights` and `mistakes` are None where no run is complete, `forest` and `outlook` where no arm
    shares a seed with the baseline.
    """

    id: str
    comparison: Comparison
    finding: str
    evidence: str
    to_do: str
    commands: list[str]
    shown: list[Shown]
    tally: str
    compared: str
    tone: Tone
    notes: list[str]
    has_images: bool
    headings: list[tuple[str, str]]
    setting_names: list[str]
    unit: str
    is_paired: bool
    margin: str
    n_corrected: int
    split_over: str
    counts: str
    n_runs: str
    n_all: str
    rows: list[ArmRow]
    strip_ends: list[str]
    lead_unit: str
    forest: ForestSection | None
    n_pruned_arms: int
    studies: list[StudySection]
    newest: str
    legend: list[LegendEntry]
    n_grey: int
    held_fixed: list[tuple[str, Any]]
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
    def label(self) -> str:
        """The table's name."""
        return self.comparison.label

    @property
    def n_seeds(self) -> int:
        """The number of seeds that arms are judged on."""
        return self.comparison.n_seeds

    @property
    def n_looks(self) -> int:
        """The number of interim analyses so far."""
        return self.comparison.n_looks

    @property
    def selected_on(self) -> str:
        """The images that chose the best arm: val or test."""
        return self.comparison.selected_on

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

    @property
    def error_text(self) -> str:
        """The errors of the conclusions' tests outside the verdict; empty without such tests."""
        told = {sentence.evidence for sentence in self.conclusions.sentences}
        if self.n_seeds < 2 or not told & {"curves", "arms"}:
            return ""
        return error_text(self.comparison, has_steadiness="curves" in told, has_loss="arms" in told)

    @property
    def level(self) -> str:
        """The level of the intervals of its differences."""
        return level(self.comparison)


def data_section(
    number: int,
    comparisons: Sequence[Comparison],
    searches: Sequence[StudyRuns],
    folder: Path,
    roots: Sequence[str | Path],
    problems: list[str],
) -> DataSection:
    """The section of the `number`th comparison, from 1, of a page in `folder` on the runs under `roots`."""
    comparison = comparisons[number - 1]
    canvas = Canvas(number, comparison)
    finding, evidence, to_train = _said(comparison, comparisons, roots)
    best, is_measured = comparison.best, bool(comparison.measured)
    environment = environment_section(comparison)
    warnings = [environment_warning(environment), *(note_on_best(s, comparison) for s in searches)]
    studies, interims = _of_study(comparison.study, folder, comparisons)
    return DataSection(
        id=canvas.id,
        comparison=comparison,
        finding=finding,
        evidence=evidence,
        to_do=_to_do(comparison) if is_measured else "Judge the result on seeds that the search did not use",
        commands=to_train,
        shown=_shown(comparison),
        tally=tally(comparison),
        compared=compared(comparison) if is_measured else "",
        tone="" if best is None else tone(best),
        notes=[*notes(comparison), *filter(None, warnings)],
        has_images=comparison.has_images,
        headings=[(heading(metric), "%" if points(metric) else "") for metric in comparison.metrics],
        setting_names=setting_names(comparison),
        unit=_unit(comparison),
        is_paired=comparison.is_paired,
        margin=margin(comparison),
        n_corrected=n_corrected(comparison),
        split_over=split_over(comparison),
        counts=counts(comparison.n_by_status),
        n_runs=count(comparison.n_by_status.total(), "run"),
        n_all=count(comparison.n_by_status.total() + len(comparison.trials), "run"),
        rows=arm_rows(comparison, canvas),
        strip_ends=strip_ends(comparison),
        lead_unit=_lead_unit(comparison),
        forest=forest_section(comparison, canvas),
        n_pruned_arms=len(comparison.arms) - len(comparison.listed),
        studies=studies,
        newest=comparison.newest[:16].replace("T", " "),
        legend=[LegendEntry(slot, arm.label, _css_dash(slot)) for slot, arm in enumerate(canvas.coloured)],
        n_grey=len(comparison.measured) - len(canvas.coloured),
        held_fixed=_held_fixed(comparison),
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


def _lead_unit(comparison: Comparison) -> str:
    """Quantity and unit of the lead: 'val accuracy, points'."""
    metric = comparison.selector
    return f"{words(metric)}{', points' if points(metric) else '' if metric.higher_is_better else ', lower is better'}"


def _said(
    comparison: Comparison, comparisons: Sequence[Comparison], roots: Sequence[str | Path]
) -> tuple[str, str, list[str]]:
    """The finding, its evidence, and the commands that train what it lacks."""
    study = comparison.study
    if study is not None and study.is_search:
        return best_text(study), judged_text(study, comparisons), judging_commands(study, comparisons)
    to_train = seeds_to_train(comparison)
    return *verdict(comparison), [*to_train, *(_joined_report(comparison, roots) if to_train else [])]


def _of_study(
    study: StudyRuns | None, folder: Path, comparisons: Sequence[Comparison]
) -> tuple[list[StudySection], list[InterimSection]]:
    """The section on the study that made a table's runs: its trials, or its interim analyses."""
    if study is None:
        return [], []
    if study.study.design is not None:
        return [], [interim_section(study)]
    return [study_section(study, folder, comparisons)], []


def _to_do(comparison: Comparison) -> str:
    return "Train more seeds" if comparison.n_seeds == 1 else "Train the seeds of the baseline that other arms lack"


def _joined_report(comparison: Comparison, roots: Sequence[str | Path]) -> list[str]:
    """The command that remakes this page with the new runs; none if the sweep itself ends with a report."""
    new = Path("outputs", sweep_name(comparison))
    known = [real_path(root) for root in roots]
    if known == [real_path(new)]:
        return []
    where = [] if any(real_path(new).is_relative_to(root) for root in known) else [new]
    return [shlex.join(["python", "-m", "reg_sweep.report", *map(str, (*roots, *where))])]


def _shown(comparison: Comparison) -> list[Shown]:
    return [
        Shown(word, len(arms), tone(arms[0]), [shown_text(arm, comparison) for arm in arms[:N_SHOWN]])
        for word, arms in shown_arms(comparison)
    ]


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
    rows = [dict(layer) for layer in layers]
    told = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    headings = [key.removeprefix("n_").replace("_", " ") for key in told]
    parts = blocks(layers)
    picture = None
    if len(parts) <= N_BLOCKS:
        described = "; ".join(f"{' + '.join(b.kinds)}, {' × '.join(map(str, b.output))}" for b in parts)
        caption = "Height: the output's side (logarithmic). Width: its channels. Blue blocks have parameters."
        caption += seen(parts)
        draw = partial(architecture, parts)
        alt = f"The network's blocks: {described}."
        picture = canvas.picture("architecture", draw, alt, caption, wide=needs_page(parts))
    return LayerTable(headings, [[_cell(row[key]) for key in told] for row in rows], picture)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " × ".join(map(str, value))
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _css_dash(slot: int) -> str:
    """A line style as SVG's stroke-dasharray, at the width that the legend draws."""
    dash = DASHES[slot]
    return "none" if dash == "solid" else " ".join(f"{2 * d:g}" for d in dash[1])
