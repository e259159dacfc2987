"""A judgement shown by itself: as text, as a pandas table, in LaTeX, in a notebook and as a forest plot."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from reg_sweep.comparison.sentences import DASH, count, is_known, p_text
from reg_sweep.report.document import escaped, tabular
from reg_sweep.report.scale import scale
from reg_sweep.runs.reading import frame
from reg_sweep.runs.validation import visible
from reg_sweep.stats.judgement import Finding, Judgement, level_text

if TYPE_CHECKING:
    from reg_sweep.report.figures.theme import Figure

_HEADINGS = ("arm", "seeds", "difference", "interval", "p", "verdict")


def label(arm: Any) -> str:
    """An arm's name as text; the values of several columns side by side."""
    return visible(" · ".join(map(str, arm)) if isinstance(arm, tuple) else str(arm))


def about(judgement: Judgement[Any]) -> str:
    """The line above a table: baseline, direction, question, what the error is split over, and the intervals' levels.

    The levels are left out where all are the error's own.
    """
    better = "higher" if judgement.higher_is_better else "lower"
    n, n_looks = judgement.n_split, judgement.n_looks
    shares = [count(n, "arm")] if n > 1 else []
    shares += [count(n_looks, "interim analysis", "interim analyses")] if n_looks > 1 else []
    over = f", split over {' and '.join(shares)}" if shares else ""
    asked = "" if judgement.question == "better" else f"; asked: {judgement.question.replace('_', ' ')}"
    margin = "" if judgement.margin is None else f"; the margin is {judgement.margin:g}"
    why = f"; exploratory: {visible(judgement.exploratory)}" if judgement.exploratory else ""
    against = f"against {label(judgement.baseline)}, {better} is better"
    return f"{against}{asked}; error {judgement.alpha:.2g}{over}{margin}{_levels(judgement)}{why}"


def _levels(judgement: Judgement[Any]) -> str:
    """'; 92% intervals', or '; 95% intervals (90% where shown equivalent)'; empty where all have the error's own."""
    own = level_text(judgement.alpha)
    levels: dict[str, dict[str, None]] = {}
    for finding in judgement.arms.values():
        if is_known(finding.evidence.ci_low) or is_known(finding.evidence.ci_high):
            levels.setdefault(finding.evidence_level(judgement.alpha), {})[finding.verdict.value] = None
    others = {level: words for level, words in levels.items() if level != own}
    if not others:
        return ""
    if judgement.question != "better":
        return f"; {' or '.join(sorted(levels))} intervals"
    where = ", ".join(f"{level} where {' or '.join(words)}" for level, words in others.items())
    return f"; {own} intervals ({where})"


def to_text(judgement: Judgement[Any]) -> str:
    """A line for each arm, below a line that says what they are compared with."""
    rows = [list(_HEADINGS), *([label(arm), *_cells(f)] for arm, f in judgement.arms.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([about(judgement), *lines])


def to_frame(judgement: Judgement[Any]) -> Any:
    """A pandas DataFrame with a row for each arm; unknown numbers are nan.

    `ci_low`, `ci_high` and `p` are those that the verdict rests on (`Finding.evidence`), as in the text, and `ci_level`
    is the interval's level: '95%', or less for equivalence and non-inferiority.

    Raises:
        ImportError: pandas is not installed.
    """
    return frame(
        {
            "arm": label(arm),
            "baseline": label(judgement.baseline),
            "verdict": f.verdict.value,
            "difference": f.difference.mean,
            "ci_low": f.evidence.ci_low,
            "ci_high": f.evidence.ci_high,
            "p": f.evidence.p,
            "ci_level": f.evidence_level(judgement.alpha),
            "mean": f.mean,
            "baseline_mean": f.baseline_mean,
            "equivalence_ci_low": f.equivalence.ci_low,
            "equivalence_ci_high": f.equivalence.ci_high,
            "p_equivalence": f.equivalence.p,
            "p_not_worse": f.p_not_worse,
            "p_divergence": f.p_divergence,
            "n_pairs": f.pairs,
            "n_missing": len(f.missing),
            "n_failed": len(f.failed),
            "n_diverged": len(f.diverged),
        }
        for arm, f in judgement.arms.items()
    )


def to_latex(judgement: Judgement[Any]) -> str:
    """A tabular with a row for each arm; bold where it is shown better or worse, and nowhere else."""
    headings = ["Arm", "Seeds", "Difference", "Interval", "$p$", "Verdict"]
    rows = []
    for arm, finding in judgement.arms.items():
        cells = [escaped(cell).replace(escaped(DASH), "--") for cell in (label(arm), *_cells(finding))]
        if finding.verdict.shows_difference:
            cells[2], cells[5] = rf"\textbf{{{cells[2]}}}", rf"\textbf{{{cells[5]}}}"
        rows.append(cells)
    return tabular(about(judgement), "lrrrrl", headings, rows)


def to_html(judgement: Judgement[Any]) -> str:
    """A table with a row for each arm; every text is escaped."""

    def row(cells: list[str] | tuple[str, ...], tag: str, bold: bool = False) -> str:
        style = ' style="text-align: left"'
        inner = "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell in cells[:-1])
        last = escape(cells[-1])
        return f"<tr>{inner}<{tag}{style}>{f'<b>{last}</b>' if bold else last}</{tag}></tr>"

    body = (row([label(arm), *_cells(f)], "td", f.verdict.shows_difference) for arm, f in judgement.arms.items())
    caption = f'<caption style="text-align: left">{escape(about(judgement))}</caption>'
    return f"<table>{caption}<thead>{row(_HEADINGS, 'th')}</thead><tbody>{''.join(body)}</tbody></table>"


def _cells(finding: Finding) -> list[str]:
    """The texts after an arm's name: seeds, difference, interval, p, verdict."""
    d = finding.evidence
    mean = f"{finding.difference.mean:+.4g}" if is_known(finding.difference.mean) else DASH
    ends = [f"{end:+.4g}" if is_known(end) else "unbounded" for end in (d.ci_low, d.ci_high)]
    interval = " to ".join(ends) if is_known(d.ci_low) or is_known(d.ci_high) else DASH
    seeds = [str(finding.pairs), *(f"{n} {word}" for word, n in _lost(finding))]
    return [", ".join(seeds), mean, interval, p_text(d.p), finding.verdict.value]


def _lost(finding: Finding) -> Iterator[tuple[str, int]]:
    n_without = len(finding.missing) - len(finding.failed) - len(finding.diverged)
    for word, n in (("diverged", len(finding.diverged)), ("failed", len(finding.failed)), ("missing", n_without)):
        if n > 0:
            yield word, n


def plot(judgement: Judgement[Any]) -> "Figure":
    """The forest plot: each arm's difference with its interval, its seeds, its verdict's mark, and the margin.

    Raises:
        ValueError: no arm has a pair with the baseline.
    """
    from reg_sweep.report.figures.differences import ForestArm, ForestPanel, forest
    from reg_sweep.report.sections.forest import legend

    shown = {arm: f for arm, f in judgement.arms.items() if is_known(f.difference.mean)}
    if not shown:
        raise ValueError(f"no arm has a seed in common with {label(judgement.baseline)}: there is nothing to plot")
    m = judgement.margin
    spans = {arm: f.evidence for arm, f in shown.items()}
    values = [v for f in shown.values() for v in (f.difference.mean, *(d for _, d in f.by_seed))]
    values += [end for d in spans.values() for end in (d.ci_low, d.ci_high)]
    axis = scale(values if m is None else [*values, -m, m], 0.0)

    def row(finding: Finding, low: float, high: float) -> ForestArm:
        has_interval = is_known(low) and is_known(high)
        ends = (axis.place(low), axis.place(high)) if has_interval else None
        dots = [axis.place(d) for _, d in finding.by_seed]
        return ForestArm(axis.place(finding.difference.mean), ends, dots, finding.verdict.mark)

    ticks = [(axis.place(t), f"{t:+.4g}".replace("-", "−") if t else "0") for t in axis.ticks()]
    title = "Difference, stretched around 0" if axis.is_stretched else "Difference"
    panel = ForestPanel(
        title,
        [row(f, spans[arm].ci_low, spans[arm].ci_high) for arm, f in shown.items()],
        ticks,
        axis.place(0.0),
        None if m is None else (axis.place(-m), axis.place(m)),
        judgement.higher_is_better,
    )
    marks = legend((f.verdict.mark, f.verdict) for f in shown.values())
    title = f"Difference from the baseline, {label(judgement.baseline)}"
    return forest(title, [panel], [label(arm) for arm in shown], marks)
