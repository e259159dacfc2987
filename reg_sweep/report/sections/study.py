"""A study's section of the page: its trials and their runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from reg_sweep.comparison.commands import judged_name, rebuilt, trained
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.sentences import DASH, count, words
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.config.digest import arm_digest
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.rows import link
from reg_sweep.report.sections.trials import Objective, epochs_of, objective, pictures
from reg_sweep.runs.ranking import parameter_text
from reg_sweep.runs.study import TRIAL_STATES, Trial

N_STUDIES = 12
N_TRIALS_LISTED = 10
N_JUDGED = 3  # trials of a front that a command judges


def objectives_of(found: StudyRuns) -> list[Objective]:
    """The objectives of a study, named as in its runs' configs; numbered where no run names them."""
    named = next((r.config.get("objective") for r in found.runs.values()), None)
    names = [named] if isinstance(named, str) else list(named or [])
    n = len(found.study.directions)
    if len(names) != n:
        names = ["objective"] if n == 1 and not names else [f"objective {i + 1}" for i in range(n)]
    at = {r.config.get("objective_at") for r in found.runs.values()}
    return [objective(str(name), at_best_val="best_val" in at) for name in names]


def note_on_best(found: StudyRuns, comparison: Comparison) -> str:
    """A note where this study's best arm is judged here and is not the verdict's; empty otherwise."""
    if found.best is None or comparison.best is None:
        return ""
    trial, run = found.best
    its = next((arm for arm in comparison.measured if arm.digest == run.arm), None)
    if its is None or its is comparison.best:
        return ""
    (searched,) = objectives_of(found)
    here = f"{words(comparison.selector)} paired over {count(comparison.n_seeds, 'seed')}"
    replicates = found.study.ranked_points[0].n_replicates
    single = "of a single run" if replicates == 1 else f"averaged over {replicates} runs"
    return (
        f"The study {found.study.name} found another arm best, {its.label}, by {searched.words} {single} (trial "
        f"{trial.number}). The verdict on this page ranks arms by {here} instead."
    )


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
    """A study as the page shows it. `failures` are the numbers of failed trials, and why they failed.

    `commands` judge what a search found, unless the page does: then `judged` says where.
    """

    name: str
    text: str
    pictures: list[Picture]
    importances: list[Importance]
    objectives: list[str]
    parameters: list[str]
    is_front: bool
    best: list[TrialRow]
    n_ranked: int
    commands: list[str]
    judged: str
    is_search: bool
    failures: list[tuple[int, str]]


def study_section(found: StudyRuns, folder: Path, comparisons: Sequence[Comparison]) -> StudySection:
    """A study's section, with links relative to `folder`; `comparisons` are the page's tables."""
    study, ranked, text = found.study, found.study.ranked, _text(found)
    return StudySection(
        name=study.name,
        text=text,
        pictures=list(pictures(found.number, study, objectives_of(found), found.runs, text)),
        importances=[
            Importance(name, f"{share:.0%}", f"{100 * min(max(share, 0), 1):.1f}")
            for name, share in sorted(study.importances.items(), key=lambda item: -item[1])
        ],
        objectives=[objective.unit for objective in objectives_of(found)],
        parameters=list(dict.fromkeys(name for t in ranked for name in t.params)),
        is_front=len(study.directions) > 1,
        best=_rows(found, ranked[:N_TRIALS_LISTED], folder),
        n_ranked=len(ranked),
        commands=judging_commands(found, comparisons),
        judged=judged_text(found, comparisons),
        is_search=found.is_search,
        failures=[(t.number, t.message) for t in study.trials if t.state == "failed"][:N_TRIALS_LISTED],
    )


def _rows(found: StudyRuns, trials: Sequence[Trial], folder: Path) -> list[TrialRow]:
    columns = [o.texts([t.values[k] for t in trials]) for k, o in enumerate(objectives_of(found))]
    return [_row(found, t, [column[n] for column in columns], folder) for n, t in enumerate(trials)]


def _row(found: StudyRuns, trial: Trial, values: list[str], folder: Path) -> TrialRow:
    run = found.runs.get(trial.number)
    return TrialRow(
        number=trial.number,
        link=None if run is None else link(run.path, folder),
        params={k: parameter_text(v) for k, v in trial.params.items()},
        values=values,
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
        params = ", ".join(f"{k} {parameter_text(v)}" for k, v in best.params.items())
        (searched,) = objectives_of(found)
        value = f"{searched.words} {searched.text(best.values[0])}{'%' if searched.is_share else ''}"
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
        text.append(f"{count(n_infeasible, 'complete trial')} violated a constraint and can't be best.")
    return " ".join(filter(None, [*text, _epochs(found)]))


def _epochs(found: StudyRuns) -> str:
    """The epochs that the trials took, and the epochs that pruning saved; empty without records."""
    taken = epochs_of(found.study, found.runs)
    spent, whole = (sum(pair[k] for pair in taken.values()) for k in (0, 1))
    if not whole:
        return ""
    if not any(t.state == "pruned" for t in found.study.trials if t.number in taken):
        return f"The trials took {count(spent, 'epoch')}."
    saved = whole - spent
    would = f"had none been pruned, they would have taken {whole:,}"
    return f"The trials took {count(spent, 'epoch')}; {would}: pruning saved {saved:,} of them, {saved / whole:.0%}."


def best_text(found: StudyRuns) -> str:
    """A search's finding in one sentence: its best trial, or how many are on its Pareto front."""
    study, ranked = found.study, found.study.ranked
    n = count(len(study.trials), "trial")
    if not ranked:
        return f"A search of {n}, none of them complete."
    if len(study.directions) > 1:
        of = " and ".join(o.words for o in objectives_of(found))
        on = f"{len(ranked)} of {n} {'is' if len(ranked) == 1 else 'are'} on the Pareto front of {of}"
        return f"{on}. A search explores; it is not judged."
    best = study.ranked_points[0]
    params = ", ".join(f"{k} {parameter_text(v)}" for k, v in best.params.items())
    (searched,) = objectives_of(found)
    value = f"{searched.words} {searched.text(best.values[0])}{'%' if searched.is_share else ''}"
    return f"Best of {n}: {params or f'trial {best.numbers[0]}'}, {value}. A search explores; it is not judged."


def judging_commands(found: StudyRuns, comparisons: Sequence[Comparison]) -> list[str]:
    """The commands that run the best trial, or some of a front, on seeds not used in the search.

    The commands are composed from the settings of the trials' runs, see `comparison.commands`; trials of another app
    have no runs here. None where one of the page's `comparisons` holds these runs.
    """
    if judged_text(found, comparisons):
        return []
    return trained(*_to_judge(found), judged_name(found.study.name))


def judged_text(found: StudyRuns, comparisons: Sequence[Comparison]) -> str:
    """The name of the page's table that holds all runs judging what a search found; empty if there is none."""
    runs, seeds = _to_judge(found)
    for comparison in filter(lambda c: found.saw(c.data), comparisons):
        tried = {arm.digest: set(arm.tried) for arm in comparison.measured}
        if runs and all(tried.get(arm_digest(to_dict(run)), set()) >= set(seeds) for run in runs):
            return f"What the search found is judged on seeds that it did not use: see the table {comparison.label}."
    return ""


def _to_judge(found: StudyRuns) -> tuple[list[RunConfig], list[int]]:
    """The configs of the runs that judge what a search found, and their seeds.

    With one objective: the best trial, with every subset of its searched lambdas set to 0. With several: the front, or
    its ends and middle if it is long, and a baseline without lambdas.
    """
    study = found.study
    if not found.is_search:
        return [], []
    best = [(t, run) for t in study.ranked if t.number in found.runs and (run := rebuilt(found.runs[t.number].config))]
    if len(study.directions) == 1:
        best = best[:1]
        searched = [key for key in ("l1", "l2") if best and best[0][0].params.get(key)]
        grid = [
            replace(run, **dict(zip(searched, strengths, strict=True)))
            for _, run in best
            for strengths in product(*((0.0, getattr(run, key)) for key in searched))
        ]
    else:
        grid = [run for _, run in (best if len(best) <= N_JUDGED else (best[0], best[len(best) // 2], best[-1]))]
        plain = [replace(run, l1=0.0, l2=0.0) for run in grid[:1] if any(r.l1 or r.l2 for r in grid)]
        grid = [*(run for run in plain if run not in grid), *grid]
    first = max((r.seed for r in found.runs.values()), default=0) + 1
    return grid, [first, first + 1, first + 2]
