"""The tables for a paper: arms.tex and differences.tex, to be read with \\input. They need the package booktabs."""

import unicodedata
from dataclasses import dataclass
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
    "→": r"$\to$",
    "₁": "$_1$",
    "₂": "$_2$",
    "²": "$^2$",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
}


def escaped(text: str) -> str:
    """A text escaped for LaTeX: no character acts as a command."""
    valid = text.encode("utf-8", "backslashreplace").decode()  # without lone surrogates
    return "".join(_MARKS.get(c, c if unicodedata.category(c)[0] != "C" else " ") for c in valid)


@dataclass(frozen=True)
class Table:
    """A table as plain text: `about` says what it holds, `columns` aligns each as LaTeX does (l or r).

    `bold` are the cells, as row and column, that mark what is shown.
    """

    about: str
    columns: str
    headings: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()

    @property
    def latex(self) -> str:
        """The table as a tabular."""
        rows = [
            [rf"\textbf{{{escaped(cell)}}}" if (i, j) in self.bold else escaped(cell) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        return tabular(self.about, self.columns, [escaped(heading) for heading in self.headings], rows)


def write_latex(folder: Path, comparisons: list[Comparison]) -> None:
    """Writes arms.tex and differences.tex; those of a second data set are data2-arms.tex and so on."""
    for number, comparison in enumerate(comparisons, 1):
        prefix = "" if number == 1 else f"data{number}-"
        (folder / f"{prefix}arms.tex").write_text(arms_table(comparison).latex, encoding="utf-8")
        (folder / f"{prefix}differences.tex").write_text(differences_table(comparison).latex, encoding="utf-8")


def arms_table(comparison: Comparison) -> Table:
    """Each arm with complete runs: seeds, its metrics with their 95% intervals, weights at zero."""
    headings, rows = ["Arm", "Seeds"], []
    for metric in comparison.metrics:
        headings += [f"{heading(metric)}{' (%)' if points(metric) else ''}", "95% interval"]
    headings += ["Zero (%)"] if comparison.has_images else []
    for arm in comparison.measured:
        cells = [arm.label, str(len(arm.replicates))]
        for metric in comparison.metrics:
            cells += _estimate(metric, arm.estimates[metric])
        if comparison.has_images:
            zero = arm.weight_shares.zero
            cells.append(f"{100 * zero:.1f}" if is_known(zero) else DASH)
        rows.append(cells)
    about = f"{comparison.label}; mean over seeds at the {_epoch(comparison)}"
    return Table(about, "l" + "r" * (len(headings) - 1), headings, rows)


def differences_table(comparison: Comparison) -> Table:
    """Each arm against the baseline, bold where it is shown better or worse, and nowhere else."""
    metric, base = comparison.metric, comparison.baseline
    unit = f" ({points(metric).strip()})" if points(metric) else ""
    headings = ["Arm", "Seeds", f"Difference{unit}", "95% interval", "p", "Verdict"]
    arms = [arm for arm in comparison.measured if arm.contrast is not None]
    against = "no baseline" if base is None else f"differences in {words(metric)} to {base.label}"
    corrected = f"intervals and p corrected for {split_over(comparison) or count(n_corrected(comparison), 'arm')}"
    equal = f"; equivalent means within {margin(comparison)}" if margin(comparison) else ""
    about = f"{comparison.label}; {against}, at the {_epoch(comparison)}; {corrected}{equal}"
    shown = [i for i, arm in enumerate(arms) if arm.contrast is not None and arm.contrast.verdict.shows_difference]
    bold = frozenset((i, j) for i in shown for j in (2, 5))
    return Table(about, "lrrrrl", headings, [_difference(arm, metric) for arm in arms], bold)


def _difference(arm: Arm, metric: Metric) -> list[str]:
    c = arm.contrast
    assert c is not None
    has_p = not (arm.missing or arm.has_diverged)  # the seeds in common are not a fair sample
    return [
        arm.label,
        str(c.pairs),
        signed(metric, c.difference.mean),
        difference_interval(metric, c.difference) or DASH,
        p_text(c.difference.p) if has_p else DASH,
        c.verdict.value,
    ]


def _estimate(metric: Metric, estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return [DASH, DASH]
    return [score(metric, estimate.mean), interval_text(metric, estimate) or DASH]


def _epoch(comparison: Comparison) -> str:
    if not comparison.has_images:
        return "judged step"
    return "last epoch" if comparison.epoch == "last" else "epoch of the lowest val loss"


def tabular(about: str, columns: str, headings: list[str], rows: list[list[str]]) -> str:
    """A tabular, with a description above it as a comment, for the caption."""
    lines = [" & ".join(cells) + r" \\" for cells in (headings, *rows)]
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"% {escaped(about)}", *body, r"\end{tabular}", ""])
