"""The tables for a paper: arms.tex and differences.tex, to be read with \\input. They need the package booktabs."""

import unicodedata
from pathlib import Path

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.sentences import (
    DASH,
    count,
    difference_interval,
    heading,
    interval_text,
    is_known,
    margin,
    n_corrected,
    p_text,
    points,
    score,
    signed,
    split_over,
    words,
)
from reg_sweep.runs.record import Metric
from reg_sweep.stats.estimates import Estimate

_MARKS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "λ": r"$\lambda$",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
}


def escaped(text: str) -> str:
    """A text escaped for LaTeX: no character acts as a command."""
    valid = text.encode("utf-8", "backslashreplace").decode()  # without lone surrogates
    return "".join(_MARKS.get(c, c if unicodedata.category(c)[0] != "C" else " ") for c in valid)


def write_latex(folder: Path, comparisons: list[Comparison]) -> None:
    """Writes arms.tex and differences.tex; those of a second data set are data2-arms.tex and so on."""
    for number, comparison in enumerate(comparisons, 1):
        prefix = "" if number == 1 else f"data{number}-"
        (folder / f"{prefix}arms.tex").write_text(arms_table(comparison), encoding="utf-8")
        (folder / f"{prefix}differences.tex").write_text(differences_table(comparison), encoding="utf-8")


def arms_table(comparison: Comparison) -> str:
    """Each arm with complete runs: seeds, its metrics with their 95% intervals, weights at zero."""
    headings, rows = ["Arm", "Seeds"], []
    for metric in comparison.metrics:
        unit = r" (\%)" if points(metric) else ""
        headings += [f"{escaped(heading(metric))}{unit}", "95\\% interval"]
    headings += [r"Zero (\%)"] if comparison.has_images else []
    for arm in comparison.measured:
        cells = [escaped(arm.label), str(len(arm.replicates))]
        for metric in comparison.metrics:
            cells += _estimate(metric, arm.estimates[metric])
        if comparison.has_images:
            zero = arm.weight_shares.zero
            cells.append(f"{100 * zero:.1f}" if is_known(zero) else "--")
        rows.append(cells)
    about = f"{comparison.label}; mean over seeds at the {_epoch(comparison)}"
    return tabular(about, "l" + "r" * (len(headings) - 1), headings, rows)


def differences_table(comparison: Comparison) -> str:
    """Each arm against the baseline, bold where it is shown better or worse, and nowhere else."""
    metric, base = comparison.metric, comparison.baseline
    unit = f" ({points(metric).strip()})" if points(metric) else ""
    headings = ["Arm", "Seeds", f"Difference{unit}", "95\\% interval", "$p$", "Verdict"]
    rows = [_difference(arm, metric) for arm in comparison.measured if arm.contrast is not None]
    against = "no baseline" if base is None else f"differences in {words(metric)} to {base.label}"
    corrected = f"intervals and p corrected for {split_over(comparison) or count(n_corrected(comparison), 'arm')}"
    equal = f"; equivalent means within {margin(comparison)}" if margin(comparison) else ""
    about = f"{comparison.label}; {against}, at the {_epoch(comparison)}; {corrected}{equal}"
    return tabular(about, "lrrrrl", headings, rows)


def _difference(arm: Arm, metric: Metric) -> list[str]:
    c = arm.contrast
    assert c is not None
    has_p = not (arm.missing or arm.has_diverged)  # the seeds in common are not a fair sample
    is_shown = c.verdict.shows_difference
    difference = escaped(signed(metric, c.difference.mean))
    verdict = escaped(c.verdict.value)
    return [
        escaped(arm.label),
        str(c.pairs),
        rf"\textbf{{{difference}}}" if is_shown else difference,
        escaped(difference_interval(metric, c.difference) or DASH),
        escaped(p_text(c.difference.p)) if has_p else "--",
        rf"\textbf{{{verdict}}}" if is_shown else verdict,
    ]


def _estimate(metric: Metric, estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["--", "--"]
    return [escaped(score(metric, estimate.mean)), escaped(interval_text(metric, estimate) or DASH)]


def _epoch(comparison: Comparison) -> str:
    if not comparison.has_images:
        return "judged step"
    return "last epoch" if comparison.epoch == "last" else "epoch of the lowest val loss"


def tabular(about: str, columns: str, headings: list[str], rows: list[list[str]]) -> str:
    """A tabular, with a description above it as a comment, for the caption."""
    lines = [" & ".join(cells) + r" \\" for cells in (headings, *rows)]
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"% {escaped(about)}", *body, r"\end{tabular}", ""])
