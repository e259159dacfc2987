"""What the page shows of one study, and of the runs of its trials."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reg_sweep.comparison.labels import lambda_text
from reg_sweep.comparison.results import DataIdentity, Result
from reg_sweep.comparison.tables import Comparison
from reg_sweep.comparison.until import judge_by_design
from reg_sweep.comparison.wording import DASH, count, words
from reg_sweep.records import METRIC
from reg_sweep.report.figures import studies as figures
from reg_sweep.report.figures.studies import TrialPoint
from reg_sweep.report.figures.theme import Figure, Picture
from reg_sweep.report.rows import link
from reg_sweep.study_record import TRIAL_STATES, Study, Trial

N_STUDIES = 12
N_PARAMETERS = 8  # of a study, drawn
N_TRIALS_LISTED = 10


@dataclass(frozen=True)
class Objective:
    """What a study searches by. Shares are shown in %."""

    name: str
    is_share: bool

    @property
    def words(self) -> str:
        """'val loss'."""
        return self.name.replace("_", " ")

    @property
    def unit(self) -> str:
        """'val accuracy, %', as a heading or an axis says it."""
        return f"{self.words}, %" if self.is_share else self.words

    def text(self, value: float) -> str:
        """A value without its unit."""
        if not math.isfinite(value):
            return "not finite"
        return f"{100 * value:.2f}" if self.is_share else f"{value:#.4g}"


def objective(name: str) -> Objective:
    """An objective by its name: a metric, `zero_share`, or another number that a user's own app returns."""
    metric = METRIC.get(name)
    return Objective(name, is_share=name == "zero_share" if metric is None else metric.unit == "share")


@dataclass(frozen=True)
class StudyRuns:
    """A study and, by the numbers of its trials, those of their runs that the report has read.

    `number` counts the report's studies from 1.
    """

    number: int
    study: Study
    runs: dict[int, Result]

    @property
    def objectives(self) -> list[Objective]:
        """As the runs' configs name them; numbered where no run tells."""
        named = next((r.config.get("objective") for r in self.runs.values()), None)
        names = [named] if isinstance(named, str) else list(named or [])
        n = len(self.study.directions)
        if len(names) != n:
            names = ["objective"] if n == 1 and not names else [f"objective {i + 1}" for i in range(n)]
        return [objective(str(name)) for name in names]

    def saw(self, data: DataIdentity) -> bool:
        """Whether the trials' runs are those of a comparison's data."""
        return data == next((r.data for r in self.runs.values() if r.data is not None), None)

    @property
    def is_search(self) -> bool:
        """Whether its trials explored, and so are no arms to judge."""
        return self.study.kind == "search"

    @property
    def best(self) -> tuple[Trial, Result] | None:
        """The best trial of a study of one objective, and its run; None where either is unknown."""
        ranked = self.study.ranked
        if len(self.study.directions) != 1 or not ranked or ranked[0].number not in self.runs:
            return None
        return ranked[0], self.runs[ranked[0].number]

    def judges(self, comparison: Comparison, problems: list[str]) -> bool:
        """Judges the comparison by the study's design, if it has one and the comparison is of its arms alone."""
        return judge_by_design(comparison, self.study, self.runs, problems)

    def note(self, comparison: Comparison) -> str:
        """What a reader of the verdict must know of this study's best; empty where both name the same arm."""
        if self.best is None or not comparison.measured:
            return ""
        trial, run = self.best
        its = next((arm for arm in comparison.measured if arm.digest == run.arm), None)
        if its is None:
            found = f"What the study {self.study.name} found best, trial {trial.number},"
            return f"{found} is none of the arms judged here."
        if its is comparison.best or comparison.best is None:
            return ""
        (searched,) = self.objectives
        here = f"{words(comparison.selector)} paired over {count(comparison.n_seeds, 'seed')}"
        replicates = self.study.ranked_points[0].n_replicates
        single = "of a single run" if replicates == 1 else f"averaged over {replicates} runs"
        return (
            f"The study {self.study.name} names another arm best, {its.label}: by {searched.words} {single}, "
            f"trial {trial.number}. The verdict ranks by {here}, which decides here."
        )


def match_runs(number: int, study: Study, results: list[Result]) -> StudyRuns:
    """The study's trials with their runs, found by where they lie."""
    by_path = {os.path.realpath(r.path): r for r in results}
    found = {t.number: by_path.get(os.path.realpath(t.directory)) for t in study.trials if t.directory is not None}
    return StudyRuns(number, study, {n: r for n, r in found.items() if r is not None})


def explored(results: list[Result], studies: list[StudyRuns]) -> list[Result]:
    """The runs that are not judged: a search's trials, and those of a study not at hand, unless it varied seeds.

    A trial is lucky on its seed where it looks best, whether or not its study.json can be read.
    """
    known = {r.path for s in studies for r in s.runs.values()}
    orphans = [r for r in results if r.trial_params is not None and r.path not in known]
    lost = [r for r in orphans if r.trial_params is not None and "seed" not in r.trial_params]
    return [*(r for s in studies if s.is_search for r in s.runs.values()), *lost]


@dataclass(frozen=True)
class Importance:
    """A parameter's share of the objective's spread, as text and as the width of a bar in %."""

    name: str
    share: str
    width: str


@dataclass(frozen=True)
class TrialRow:
    """One trial in the table of the best. `link` leads to its run from the page, if the report has read it."""

    number: int
    link: str | None
    params: dict[str, str]
    values: list[str]
    epochs: str


@dataclass(frozen=True)
class StudySection:
    """A study as the page shows it. `failures` are the numbers of failed trials, and why they failed."""

    name: str
    text: str
    pictures: list[Picture]
    importances: list[Importance]
    objectives: list[str]
    parameters: list[str]
    is_front: bool
    best: list[TrialRow]
    n_ranked: int
    command: str
    is_search: bool
    failures: list[tuple[int, str]]


def study_section(found: StudyRuns, folder: Path) -> StudySection:
    """What a page in `folder` shows of a study."""
    study, ranked, text = found.study, found.study.ranked, _text(found)
    return StudySection(
        name=study.name,
        text=text,
        pictures=list(_pictures(found, text)),
        importances=[
            Importance(name, f"{share:.0%}", f"{100 * min(max(share, 0), 1):.1f}")
            for name, share in sorted(study.importances.items(), key=lambda item: -item[1])
        ],
        objectives=[objective.unit for objective in found.objectives],
        parameters=list(dict.fromkeys(name for t in ranked for name in t.params)),
        is_front=len(study.directions) > 1,
        best=[_row(found, t, folder) for t in ranked[:N_TRIALS_LISTED]],
        n_ranked=len(ranked),
        command=judging_command(found),
        is_search=found.is_search,
        failures=[(t.number, t.message) for t in study.trials if t.state == "failed"][:N_TRIALS_LISTED],
    )


def _row(found: StudyRuns, trial: Trial, folder: Path) -> TrialRow:
    run = found.runs.get(trial.number)
    return TrialRow(
        number=trial.number,
        link=None if run is None else link(run.path, folder),
        params={k: _parameter_text(v) for k, v in trial.params.items()},
        values=[objective.text(v) for objective, v in zip(found.objectives, trial.values, strict=True)],
        epochs=DASH if run is None else str(len(run.curves)),
    )


# ---- words


def _text(found: StudyRuns) -> str:
    """'30 trials: 11 complete, 19 pruned. Best is trial 0 (l1 0.001): val loss 0.06. ...'"""
    study, ranked = found.study, found.study.ranked
    counts = Counter(t.state for t in study.trials)
    states = ", ".join(f"{counts[s]:,} {s}" for s in TRIAL_STATES if counts[s])
    text = [f"{count(len(study.trials), 'trial')}: {states or 'none yet'}."]
    if ranked and len(study.directions) == 1:
        best = study.ranked_points[0]
        params = ", ".join(f"{k} {_parameter_text(v)}" for k, v in best.params.items())
        (searched,) = found.objectives
        value = f"{searched.words} {searched.text(best.values[0])}{' %' if searched.is_share else ''}"
        who = f"trial {best.numbers[0]} ({params}): {value}"
        if study.replicates:
            numbers = f"trial{'s' if best.numbers[1:] else ''} {', '.join(map(str, best.numbers))}"
            who = f"{params or 'the one point'}, by the mean over {', '.join(study.replicates)} of {numbers}: {value}"
        text.append(f"Best is {who}.")
    elif ranked:
        text.append(
            f"{count(len(ranked), 'trial is', 'trials are')} on the Pareto front: "
            "none is better in one objective without being worse in another."
        )
    n_infeasible = sum(not t.is_feasible for t in study.trials if t.state == "complete")
    if n_infeasible:
        text.append(f"{count(n_infeasible, 'complete trial')} broke a constraint, and cannot be best.")
    return " ".join([*text, *_epochs(found)])


def _epochs(found: StudyRuns) -> list[str]:
    """How many epochs the ended trials took, and what share pruning saved; nothing without records."""
    ended = {t.number: t for t in found.study.trials if t.state in ("complete", "pruned")}
    runs = {n: r for n, r in found.runs.items() if n in ended}
    whole = sum(int(r.config["epochs"]) for r in runs.values())
    if not whole:
        return []
    done = sum(len(r.curves) for r in runs.values())
    pruned = [r for n, r in runs.items() if ended[n].state == "pruned"]
    text = f"The ended trials took {done:,} of {whole:,} epochs"
    if not pruned:
        return [f"{text}."]
    saved = sum(int(r.config["epochs"]) - len(r.curves) for r in pruned)
    return [f"{text}: pruning saved {saved / whole:.0%}."]


def judging_command(found: StudyRuns) -> str:
    """How to run the best trial on seeds that chose nothing, and without each searched lambda; empty if unknown."""
    study = found.study
    if not found.is_search or not study.ranked or not study.command:
        return ""
    first = max((r.seed for r in found.runs.values()), default=0) + 1
    overrides = [f"seed={first},{first + 1},{first + 2}"]
    if len(study.directions) == 1:  # those of a front have a lambda each
        best = study.ranked[0].params
        overrides += [f"{key}=0,{best[key]}" for key in ("l1", "l2") if best.get(key)]
    # Plain Hydra takes its overrides in one piece.
    return " ".join([study.command, *overrides, "-m"])


def _parameter_text(value: Any) -> str:
    return lambda_text(value) if isinstance(value, float) and value >= 0 else str(value)


# ---- pictures


def _pictures(found: StudyRuns, text: str) -> Iterator[Picture]:
    study, points = found.study, _points(found.study)
    if len(study.directions) > 1:
        if points and study.ranked:
            yield _front(found, points)
    elif points:
        yield _history(found, points, text)
        names = [name for name in study.parameters if name not in study.replicates][:N_PARAMETERS]
        for name, in_file in _in_files(names).items():
            having = [p for p in points if name in p.params]
            if len({repr(p.params[name]) for p in having}) > 1:
                yield _parameter(found, name, in_file, having)


def _in_files(parameters: list[str]) -> dict[str, str]:
    """What stands for each parameter in its picture's file name: short, and none twice."""
    short = {name: re.sub(r"\W+", "-", name)[:40] for name in parameters}
    taken = Counter(["history", *short.values()])
    return {name: f"{s}-{n}" if taken[s] > 1 or len(s) == 40 else s for n, (name, s) in enumerate(short.items(), 1)}


def _points(study: Study) -> list[TrialPoint]:
    """The trials that can be drawn: complete ones, and pruned ones at what they reported last."""
    points = []
    for t in study.trials:
        values = t.values if t.state == "complete" else (t.last,) if t.state == "pruned" else ()
        if values and all(map(math.isfinite, values)):
            points.append(TrialPoint(t.number, t.params, values, t.state == "pruned"))
    return points


def _history(found: StudyRuns, points: list[TrialPoint], text: str) -> Picture:
    study, (searched,) = found.study, found.objectives
    title = f"{study.name}: trial by trial"
    figure = figures.history(
        title,
        searched.unit,
        points,
        [t.number for t in study.trials if t.state == "failed"],
        minimize=study.directions == ["minimize"],
        is_accuracy=searched.is_share,
    )
    return _picture(found, "history", figure, f"{title}. {text}")


def _parameter(found: StudyRuns, name: str, in_file: str, having: list[TrialPoint]) -> Picture:
    """The objective against one parameter of the trials that have it; the best of all ringed if it is one of them."""
    (searched,), ranked = found.objectives, found.study.ranked
    title = f"{found.study.name}: {name}"
    best = ranked[0] if ranked and any(p.number == ranked[0].number for p in having) else None
    ringed = None if best is None else best.number
    figure = figures.parameter(title, name, searched.unit, having, ringed, is_accuracy=searched.is_share)
    alt = f"{title}. {searched.unit} against {name} of {len(having)} trials"
    if best is not None:
        alt += f"; the best has {name} {_parameter_text(best.params[name])}"
    return _picture(found, in_file, figure, f"{alt}.")


def _front(found: StudyRuns, points: list[TrialPoint]) -> Picture:
    objectives, ranked = found.objectives, found.study.ranked
    title = f"{found.study.name}: the Pareto front"
    figure = figures.pareto_front(title, [o.unit for o in objectives], points, [t.number for t in ranked])
    ends = "; ".join(
        f"trial {t.number}: " + ", ".join(f"{o.unit} {o.text(v)}" for o, v in zip(objectives, t.values, strict=True))
        for t in (ranked[0], ranked[-1])
    )
    return _picture(found, "front", figure, f"{title}. {len(ranked)} of {len(points)} trials, from {ends}.")


def _picture(found: StudyRuns, name: str, figure: Figure, alt: str) -> Picture:
    return Picture(f"trials-{found.number}-{name}", alt, figure, f"t{found.number}{name}")
