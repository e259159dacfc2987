"""A sequential study: its decision on each arm, the seeds that it took, and the runs that it saved."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from reg_sweep.comparison.arms import mean_of_known
from reg_sweep.comparison.labels import listed, norm_text
from reg_sweep.comparison.sentences import DASH, count, is_known, possible, signed
from reg_sweep.comparison.study_runs import Params, StudyRuns, arm_params
from reg_sweep.report.figures import differences as figures
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.sections.outlook import duration
from reg_sweep.runs.ranking import parameter_text
from reg_sweep.runs.record import METRIC, Metric
from reg_sweep.runs.study import StudyDesign
from reg_sweep.stats.estimates import Difference
from reg_sweep.stats.judgement import Finding, Interim
from reg_sweep.stats.verdict import Tone, Verdict

N_PANELS = 12
N_ROWS = 50
NOT_YET = "not analysed yet"


@dataclass(frozen=True)
class InterimRow:
    """An arm as text; `tone` colours its verdict."""

    label: str
    seeds: str
    difference: str
    interval: str
    verdict: str
    tone: Tone
    lost: str


@dataclass(frozen=True)
class InterimSection:
    """A sequential study's section. `disagreements` are looks whose recorded decision differs from a new judgement."""

    name: str
    summary: str
    design: str
    saved: str
    rows: list[InterimRow]
    n_left_out: int
    disagreements: list[str]
    failures: list[tuple[int, str]]
    pictures: list[Picture]


def interim_section(found: StudyRuns) -> InterimSection:
    """The section of a study that has a design, from the judgement of its table."""
    study, design, judgement = found.study, found.study.design, found.judgement
    assert design is not None
    assert judgement is not None
    metric, alpha = METRIC.get(design.metric), judgement.alpha
    arms = {tuple(arm.items()): judgement.arms[arm_params(arm)] for arm in design.arms}  # as they were written
    return InterimSection(
        name=study.name,
        summary=_summary(found, arms, design),
        design=_design(design, metric, [look.seeds for look in study.looks], alpha),
        saved=_saved(found, design),
        rows=[_row(found, *of_arm, metric, design, alpha) for of_arm in list(arms.items())[:N_ROWS]],
        n_left_out=max(len(arms) - N_ROWS, 0),
        disagreements=[said for params, finding in arms.items() if (said := _disagreement(found, params, finding))],
        failures=[(t.number, t.message) for t in study.trials if t.state == "failed"][:N_ROWS],
        pictures=_pictures(found, arms, design, metric, alpha),
    )


def params_text(params: Iterable[tuple[str, object]]) -> str:
    """'norm gbn, l1 0.001'; 'no norm', as the labels of arms say."""
    return ", ".join(_param_text(k, v) for k, v in params if k != "seed")


def _param_text(key: str, value: object) -> str:
    if (key, value) == ("norm", "none"):
        return norm_text(value)
    return f"{key} {parameter_text(value)}"


def _is_open(finding: Finding) -> bool:
    """Whether no interim analysis has decided an arm."""
    return not finding.path or finding.path[-1].verdict is Verdict.UNDECIDED


def _is_given_up(found: StudyRuns, params: Params, finding: Finding) -> bool:
    """Whether the study left an undecided arm out of its later interim analyses (`design.in_order`)."""
    said = found.recorded(params)
    is_undecided = set(said) == {Verdict.UNDECIDED.value, "nothing"} and said[-1] == "nothing"
    return is_undecided and bool(finding.path) and _is_open(finding)


def _word(found: StudyRuns, params: Params, finding: Finding) -> str:
    """The verdict's word, 'undecided, given up' or 'not analysed yet'."""
    if not finding.path:
        return NOT_YET
    return f"{finding.verdict}, given up" if _is_given_up(found, params, finding) else finding.verdict


def _summary(found: StudyRuns, arms: Mapping[Params, Finding], design: StudyDesign) -> str:
    """'2 of 3 arms decided: 1 worse, 1 shown equivalent. No difference shown: l1 0.001. Baseline: l1 0.'"""
    if not any(finding.path for finding in arms.values()):
        return "No interim analysis yet: nothing is decided."
    decided = Counter(f.verdict for f in arms.values() if not _is_open(f))
    parts = ", ".join(f"{n:,} {verdict}" for verdict, n in decided.items())
    text = f"{decided.total():,} of {count(len(arms), 'arm')} decided"
    text += f": {parts}." if parts else "."
    still_open: dict[str, list[str]] = {}
    for params, finding in arms.items():
        if _is_open(finding):
            still_open.setdefault(_word(found, params, finding), []).append(params_text(params))
    for word, named in still_open.items():
        more = f" and {len(named) - 3:,} more" if len(named) > 3 else ""
        text += f" {word.capitalize()}: {'; '.join(named[:3])}{more}."
    return f"{text} Baseline: {params_text(design.baseline.items())}."


def _design(design: StudyDesign, metric: Metric | None, done: list[int], alpha: float) -> str:
    margin = "no margin, so nothing is shown equivalent"
    if design.margin is not None:
        margin = f"margin ±{_size(design.margin, metric)}"
    looks = listed(list(map(str, design.looks)))
    noise = ""
    if design.earlier_variance is not None:
        sd = _size(float(f"{design.earlier_variance**0.5:.3g}"), metric)
        noise = f", the noise of an earlier study ({design.noise_from}: {sd}) as two degrees of freedom"
    spent = f", all of it spent by {design.max_seeds} seeds" if design.spending == "all" else ""
    seen = f"done: {', '.join(map(str, done))}" if done else "none done yet"
    less = f" (this page judges at {100 * alpha:g}%)" if alpha < design.alpha else ""
    return (
        f"Fixed before the first run: {design.metric.replace('_', ' ')}, looks (interim analyses) at {looks} seeds "
        f"({seen}), {margin}, one error of {100 * design.alpha:g}% over all arms and looks{less}{spent}, "
        f"{design.variance} variances{noise}. Repeated looks do not raise the error: the intervals hold for all looks "
        "together."
    )


def _size(value: float, metric: Metric | None) -> str:
    is_share = metric is not None and metric.unit == "share"
    return f"{100 * value:g} points" if is_share else f"{value:g}"


def _saved(found: StudyRuns, design: StudyDesign) -> str:
    """'17 runs instead of 60 (20 seeds of each of 3 arms): 72% saved, about 1.2 h.'"""
    n = sum(t.state in ("complete", "failed", "pruned") for t in found.study.trials)
    n_arms = 1 + len(design.arms)
    whole = design.max_seeds * n_arms
    if n >= whole:
        return f"{count(n, 'run')}: {design.max_seeds} seeds of each of {n_arms:,} arms, none saved."
    text = f"{count(n, 'run')} instead of {whole:,} ({design.max_seeds} seeds of each of {n_arms:,} arms)"
    time = duration((whole - n) * mean_of_known(r.seconds for r in found.runs.values()) / 3600)
    return f"{text}: {1 - n / whole:.0%} saved{f', about {time}' if time else ''}."


def _row(
    found: StudyRuns, params: Params, finding: Finding, metric: Metric | None, design: StudyDesign, alpha: float
) -> InterimRow:
    if not finding.path:
        return InterimRow(params_text(params), DASH, DASH, "", NOT_YET, "", "")
    last, d = finding.path[-1], finding.evidence
    level = f" ({finding.evidence_level(alpha)})" if finding.rests_on_margin else ""
    counts = ((len(finding.diverged), "diverged"), (len(finding.failed), "failed"))
    return InterimRow(
        label=params_text(params),
        seeds=f"{last.seeds} of {design.max_seeds}",
        difference=_signed(d.mean, metric),
        interval=f"{_interval(d.ci_low, d.ci_high, metric)}{level}" if is_known(d.ci_low) else "",
        verdict=_word(found, params, finding),
        tone=finding.verdict.tone,
        lost=", ".join(f"{n} of {last.seeds} {word}" for n, word in counts if n),
    )


def _interval(low: float, high: float, metric: Metric | None) -> str:
    return " to ".join(_signed(_cut(end, metric), metric) for end in (low, high))


def _cut(end: float, metric: Metric | None) -> float:
    """An interval's end, clipped to the metric's possible differences."""
    return end if metric is None or not is_known(end) else possible(metric, end)


def _signed(value: float, metric: Metric | None) -> str:
    if metric is not None:
        return signed(metric, value)
    return f"{value:+.4g}".replace("-", "−") if is_known(value) else DASH


def _disagreement(found: StudyRuns, params: Params, finding: Finding) -> str:
    """Where an arm's recorded decisions differ from those that the records give now; empty if they agree."""
    for said, point in zip(found.recorded(params), finding.path, strict=False):
        if said != point.decision.value:
            return (
                f"{params_text(params)}, at {point.seeds} seeds: these records say {point.decision}, the study decided "
                f"{said}. "
                "A run was changed since, or an earlier version judged by another rule."
            )
    return ""


def _drawn_interval(point: Interim, design: StudyDesign) -> Difference:
    """The interval that the question asks for: of the difference, or of equivalence or non-inferiority alone."""
    return point.difference if design.question == "better" else point.equivalence


def _levels(finding: Finding, alpha: float) -> list[str]:
    """The nominal level of an arm's interval at each interim analysis that has one."""
    known = [point for point in finding.path if is_known(point.equivalence.ci_low)]
    return [replace(finding, plan=point.plan).evidence_level(alpha) for point in known]


def _panel(found: StudyRuns, params: Params, f: Finding, design: StudyDesign, metric: Metric | None) -> figures.ArmPath:
    spans = [_drawn_interval(point, design) for point in f.path]
    return figures.ArmPath(
        label=params_text(params),
        verdict=_word(found, params, f) + ("" if _is_open(f) else f" at {f.path[-1].seeds}"),
        seeds=[point.seeds for point in f.path],
        estimate=[point.difference.mean for point in f.path],
        low=[_cut(span.ci_low, metric) for span in spans],
        high=[_cut(span.ci_high, metric) for span in spans],
    )


def _pictures(
    found: StudyRuns, arms: Mapping[Params, Finding], design: StudyDesign, metric: Metric | None, alpha: float
) -> list[Picture]:
    known = {p: f for p, f in arms.items() if any(is_known(_drawn_interval(x, design).ci_low) for x in f.path)}
    drawn = dict(list(known.items())[:N_PANELS])
    if not drawn:
        return []
    is_share = metric is not None and metric.unit == "share"
    looks = [look.seeds for look in found.study.looks]
    title = f"{found.study.name}: each arm's interval over the seeds"
    panels = [_panel(found, params, f, design, metric) for params, f in drawn.items()]
    unit = f"difference, {'points' if is_share else design.metric.replace('_', ' ')}"
    draw = partial(figures.paths, title, unit, panels, looks, design.margin, is_share=is_share)
    is_of_margin = design.question != "better"
    ends = "; ".join(
        f"{panel.label}: {panel.verdict}, {_interval(panel.low[-1], panel.high[-1], metric)}"
        + (f" ({f.evidence_level(alpha)})" if is_of_margin and is_known(panel.low[-1]) else "")
        for panel, f in zip(panels, drawn.values(), strict=True)
    )
    levels = sorted({level for f in drawn.values() for level in _levels(f, alpha)}) if is_of_margin else []
    of_level = f"{' or '.join(levels)} " if levels else ""
    is_any_given_up = any(_is_given_up(found, params, f) for params, f in drawn.items())
    caption = f"Simultaneous {of_level}intervals of all arms and looks; an arm's path ends where it was decided"
    caption += " or given up." if is_any_given_up else "."
    if design.margin is not None:
        is_seen = figures.margin_is_seen(panels, design.margin)
        caption += " Shaded: the margin." if is_seen else " The margin is too narrow to be seen here."
    if len(drawn) < len(arms):
        caption += f" {len(drawn)} of {len(arms)} arms."
    n = found.number
    return [Picture(f"until-{n}-paths", f"{title}. {ends}.", draw, f"u{n}paths", caption, wide=len(drawn) > 1)]
