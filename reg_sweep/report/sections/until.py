"""A study until a verdict: what its design decided on each arm, on how many seeds, and what that saved."""

from dataclasses import dataclass
from functools import partial

from reg_sweep.comparison.arms import mean_of_known
from reg_sweep.comparison.labels import lambda_text, norm_text
from reg_sweep.comparison.until import Path as ArmPath
from reg_sweep.comparison.until import paths, scores_of
from reg_sweep.comparison.wording import DASH, count, is_known, signed
from reg_sweep.report.figures import paths as figures
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.sections.outlook import duration
from reg_sweep.report.sections.study import StudyRuns
from reg_sweep.runs.record import METRIC, Metric
from reg_sweep.runs.study import UNDECIDED, Design

N_PANELS = 12
N_ROWS = 50


@dataclass(frozen=True)
class UntilRow:
    """An arm as text; `tone` colours its verdict."""

    label: str
    seeds: str
    difference: str
    interval: str
    verdict: str
    tone: str
    lost: str


@dataclass(frozen=True)
class UntilSection:
    """A study until a verdict as the page shows it. `disagreements` are looks that its record tells otherwise."""

    name: str
    summary: str
    design: str
    saved: str
    rows: list[UntilRow]
    n_left_out: int
    disagreements: list[str]
    failures: list[tuple[int, str]]
    pictures: list[Picture]


def until_section(found: StudyRuns) -> UntilSection:
    """What the page shows of a study that has a design."""
    study, design = found.study, found.study.design
    assert design is not None
    metric = METRIC.get(design.metric)
    arms = paths(study, scores_of(study, found.runs))
    return UntilSection(
        name=study.name,
        summary=_summary(arms, design),
        design=_design(design, metric, [look.seeds for look in study.looks]),
        saved=_saved(found, design),
        rows=[_row(arm, metric, design) for arm in arms[:N_ROWS]],
        n_left_out=max(len(arms) - N_ROWS, 0),
        disagreements=[_disagreement(arm) for arm in arms if not arm.agrees],
        failures=[(t.number, t.message) for t in study.trials if t.state == "failed"][:N_ROWS],
        pictures=_pictures(found, arms, design, metric),
    )


def params_text(params: dict[str, object]) -> str:
    """'norm gbn, l1 0.001'; 'no norm', as the labels of arms say."""
    return ", ".join(_param_text(k, v) for k, v in params.items() if k != "seed")


def _param_text(key: str, value: object) -> str:
    if (key, value) == ("norm", "none"):
        return norm_text(value)
    return f"{key} {lambda_text(value) if isinstance(value, float) and value >= 0 else value}"


def _word(decision: str) -> str:
    """A decision in the words of the page's verdicts, where an arm that is open has no difference shown."""
    return "no difference shown" if decision == UNDECIDED else decision


def _summary(arms: list[ArmPath], design: Design) -> str:
    """'2 of 3 arms decided against l1 0: 1 worse, 1 shown equivalent. No difference shown: l1 0.001.'"""
    if not any(arm.points for arm in arms):
        return "No look was done yet: nothing is decided."
    decided = [arm for arm in arms if not arm.is_open]
    words = dict.fromkeys(arm.decision for arm in decided)
    parts = ", ".join(f"{sum(arm.decision == w for arm in decided):,} {w}" for w in words)
    text = f"{len(decided):,} of {count(len(arms), 'arm')} decided against {params_text(design.baseline)}"
    text += f": {parts}." if parts else "."
    undecided = [params_text(arm.params) for arm in arms if arm.is_open]
    if undecided:
        more = f" and {len(undecided) - 3:,} more" if len(undecided) > 3 else ""
        text += f" No difference shown: {'; '.join(undecided[:3])}{more}."
    return text


def _design(design: Design, metric: Metric | None, done: list[int]) -> str:
    margin = "no margin, so nothing is shown equivalent"
    if design.margin is not None:
        margin = f"margin ±{_size(design.margin, metric)}"
    looks = ", ".join(map(str, design.looks))
    seen = f"done: {', '.join(map(str, done))}" if done else "none done yet"
    return (
        f"Fixed before the first run: {design.metric.replace('_', ' ')}, looks at {looks} seeds ({seen}), "
        f"{margin}, one error of {100 * design.alpha:g}% over all arms and looks, {design.variance} variances. "
        "Looking again costs no validity: the intervals are wide enough for all looks together."
    )


def _size(value: float, metric: Metric | None) -> str:
    is_share = metric is not None and metric.unit == "share"
    return f"{100 * value:g} points" if is_share else f"{value:g}"


def _saved(found: StudyRuns, design: Design) -> str:
    """'17 runs; 20 seeds of each of the 3 arms would have been 60: 43 saved, about 1.2 h.'"""
    n = sum(t.state in ("complete", "failed", "pruned") for t in found.study.trials)
    n_arms = 1 + len(design.arms)
    whole = design.max_seeds * n_arms
    text = f"{count(n, 'run')} took the place of {whole:,} ({design.max_seeds} seeds of each of {n_arms:,} arms)"
    time = duration((whole - n) * mean_of_known(r.seconds for r in found.runs.values()) / 3600)
    return f"{text}: {1 - n / whole:.0%} saved{f', about {time}' if time and n < whole else ''}."


def _row(arm: ArmPath, metric: Metric | None, design: Design) -> UntilRow:
    last = arm.points[-1] if arm.points else None
    counts = ((arm.n_diverged, "diverged"), (arm.n_failed, "failed"))
    return UntilRow(
        label=params_text(arm.params),
        seeds=DASH if last is None else f"{last.seeds} of {design.max_seeds}",
        difference=DASH if last is None else _signed(last.estimate, metric),
        interval="" if last is None or not is_known(last.ci_low) else _interval(last.ci_low, last.ci_high, metric),
        verdict=_word(arm.decision) if last is not None else "not looked at yet",
        tone="worse" if arm.decision.startswith("worse") else "better" if arm.decision == "better" else "",
        lost=", ".join(f"{n} of {last.seeds} {word}" for n, word in counts if n and last is not None),
    )


def _interval(low: float, high: float, metric: Metric | None) -> str:
    return f"{_signed(low, metric)} to {_signed(high, metric)}"


def _signed(value: float, metric: Metric | None) -> str:
    if metric is not None:
        return signed(metric, value)
    return f"{value:+.4g}".replace("-", "−") if is_known(value) else DASH


def _disagreement(arm: ArmPath) -> str:
    first = next(i for i, p in enumerate(arm.points) if i >= len(arm.recorded) or arm.recorded[i] != p.decision)
    point = arm.points[first]
    return (
        f"{params_text(arm.params)}, at {point.seeds} seeds: these records say {_word(point.decision)}, the study "
        f"decided {_word(arm.recorded[first])}. A run was changed since."
    )


def _pictures(found: StudyRuns, arms: list[ArmPath], design: Design, metric: Metric | None) -> list[Picture]:
    drawn = [arm for arm in arms if any(is_known(p.ci_low) for p in arm.points)][:N_PANELS]
    if not drawn:
        return []
    is_share = metric is not None and metric.unit == "share"
    looks = [look.seeds for look in found.study.looks]
    title = f"{found.study.name}: each arm's interval over the seeds"
    panels = [
        figures.ArmPath(
            label=params_text(arm.params),
            verdict=_word(arm.decision) if arm.is_open else f"{arm.decision} at {arm.points[-1].seeds}",
            seeds=[p.seeds for p in arm.points],
            estimate=[p.estimate for p in arm.points],
            low=[p.ci_low for p in arm.points],
            high=[p.ci_high for p in arm.points],
        )
        for arm in drawn
    ]
    unit = f"difference, {'points' if is_share else design.metric.replace('_', ' ')}"
    draw = partial(figures.paths, title, unit, panels, looks, design.margin, is_share=is_share)
    ends = "; ".join(
        f"{panel.label}: {panel.verdict}, {_interval(panel.low[-1], panel.high[-1], metric)}" for panel in panels
    )
    caption = "Simultaneous intervals of all arms and looks; an arm's path ends where it was decided."
    caption += " Shaded: the margin." if design.margin is not None else ""
    if len(drawn) < len(arms):
        caption += f" {len(drawn)} of {len(arms)} arms."
    n = found.number
    return [Picture(f"until-{n}-paths", f"{title}. {ends}.", draw, f"u{n}paths", caption, wide=len(drawn) > 1)]
