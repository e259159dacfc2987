r"""A short document in Markdown and in LaTeX, from the same blocks: headings, prose, lists, tables, figures.

Two tables are files of their own for a paper: arms.tex and differences.tex, to be read with \input. They need the
package booktabs.
"""

import re
import textwrap
import unicodedata
from collections.abc import Sequence
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
    level,
    margin,
    n_corrected,
    own_evidence,
    p_text,
    points,
    score,
    signed,
    split_over,
    words,
)
from reg_sweep.runs.record import Metric
from reg_sweep.runs.validation import visible
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


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is a section's."""

    text: str
    level: int = 1


@dataclass(frozen=True)
class Prose:
    """A paragraph, with the words that open it in bold."""

    text: str
    opening: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Image:
    """A figure: its file in figures/, without an ending, and its caption."""

    name: str
    caption: str


@dataclass(frozen=True)
class Formulas:
    """Formulas in LaTeX, each with its name."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    lines: Sequence[str]


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


Block = Heading | Prose | Bullets | Table | Image | Formulas | Code

FIGURES = "figures"


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The document for any Markdown viewer; figures are PNGs, formulas in dollars."""
    parts = [f"# {markdown_text(title)}", *map(_markdown, blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * (level + 1)} {markdown_text(text)}"
        case Prose(text, opening):
            return f"**{markdown_text(opening)}.** {markdown_text(text)}" if opening else markdown_text(text)
        case Bullets(items):
            return "\n".join(f"- {markdown_text(item)}" for item in items)
        case Table():
            return _markdown_table(block)
        case Image(name, caption):
            return f"![{markdown_text(name.replace('-', ' '))}]({FIGURES}/{name}.png)\n\n*{markdown_text(caption)}*"
        case Formulas(rows):
            return "\n".join(f"- {markdown_text(name)}: ${formula}$" for name, formula in rows)
        case Code(lines):
            return "\n".join(f"    {visible(line)}" for line in lines)


def _markdown_table(table: Table) -> str:
    rule = ["---:" if column == "r" else "---" for column in table.columns]
    rows = [
        [f"**{markdown_text(cell)}**" if (i, j) in table.bold else markdown_text(cell) for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    lines = [list(map(markdown_text, table.headings)), rule, *rows]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", f"*{markdown_text(table.about)}.*"])


def markdown_text(text: str) -> str:
    """A text escaped for Markdown: a label makes no mark-up, no link and no HTML."""
    text = visible(text)
    for mark in "\\|<*_`":
        text = text.replace(mark, "&lt;" if mark == "<" else "\\" + mark)
    return text.replace("](", "]\\(")


_PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[T1,OT1]{fontenc}
\DeclareTextSymbolDefault{\textquotedbl}{T1}
\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}
\usepackage[utf8]{inputenc}
\usepackage[margin=1in]{geometry}
\usepackage{amsmath}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage{textcomp}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}
\setlength{\tabcolsep}{4pt}
\sloppy
\renewcommand{\topfraction}{0.9}
\renewcommand{\floatpagefraction}{0.7}
"""
_SECTIONS = ("section", "subsection", "subsubsection")


def as_latex(title: str, blocks: Sequence[Block]) -> str:
    """The document for pdflatex, xelatex or lualatex, with packages that every distribution has; figures are PDFs."""
    head = f"{_PREAMBLE}\\title{{{_latex_text(title)}}}\n\\author{{}}\n\\date{{}}"
    parts, has_figures = [head, r"\begin{document}", r"\maketitle"], False
    for block in blocks:
        if isinstance(block, Heading) and has_figures:  # figures stay in their section
            parts.append(r"\clearpage")
            has_figures = False
        has_figures |= isinstance(block, Image)
        parts.append(_latex(block))
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


def _latex(block: Block) -> str:
    match block:
        case Heading(text, level):
            return rf"\{_SECTIONS[level - 1]}*{{{_latex_text(text)}}}"
        case Prose(text, opening):
            return rf"\textbf{{{_latex_text(opening)}.}} {_latex_text(text)}" if opening else _latex_text(text)
        case Bullets(items):
            return "\n".join([r"\begin{itemize}", *(rf"\item {_latex_text(i)}" for i in items), r"\end{itemize}"])
        case Table():
            # A table wider than the text reaches as far into either margin.
            inside = [r"\makebox[\textwidth]{", block.latex.rstrip(), "}", rf"\caption{{{_latex_text(block.about)}.}}"]
            return "\n".join([r"\begin{table}[htbp]", "\\centering\\footnotesize", *inside, r"\end{table}"])
        case Image(name, caption):
            drawn, said = rf"\includegraphics{{{FIGURES}/{name}.pdf}}", rf"\caption{{{_latex_text(caption)}}}"
            return "\n".join([r"\begin{figure}[htbp]", r"\centering", drawn, said, r"\end{figure}"])
        case Formulas(rows):
            lines = [rf"\text{{{_latex_text(name)}:}} &\quad {formula}" for name, formula in rows]
            return "\n".join([r"\begin{align*}", " \\\\\n".join(lines), r"\end{align*}"])
        case Code(lines):
            typed = (part for line in lines for part in textwrap.wrap(visible(line), 72, subsequent_indent="    "))
            return "\n".join([r"\begin{footnotesize}\begin{verbatim}", *typed, r"\end{verbatim}\end{footnotesize}"])


def _latex_text(text: str) -> str:
    """Escaped text whose quotes open and close."""
    return re.sub(r"(?<![\w'])'(?=\w)", "`", escaped(text))


def escaped(text: str) -> str:
    """A text escaped for LaTeX: no character acts as a command."""
    valid = text.encode("utf-8", "backslashreplace").decode()  # without lone surrogates
    return "".join(_MARKS.get(c, c if unicodedata.category(c)[0] != "C" else " ") for c in valid)


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
    mean = "one seed" if comparison.n_seeds == 1 else "mean over seeds"
    about = f"{comparison.label}; {mean} at the {_epoch(comparison)}; sorted by {words(comparison.selector)}"
    if comparison.has_images:
        about += "; zero: weights of exactly 0"
    return Table(about, "l" + "r" * (len(headings) - 1), headings, rows)


def differences_table(comparison: Comparison) -> Table:
    """Each arm against the baseline, bold where it is shown better or worse, and nowhere else."""
    metric, base = comparison.metric, comparison.baseline
    unit = f" ({points(metric).strip()})" if points(metric) else ""
    headings = ["Arm", "Seeds", f"Difference{unit}", f"{level(comparison)} interval", "p", "Verdict"]
    arms = [arm for arm in comparison.measured if arm.contrast is not None]
    against = "no baseline" if base is None else f"differences in {words(metric)} to {base.label}"
    corrected = f"intervals and p corrected for {split_over(comparison) or count(n_corrected(comparison), 'arm')}"
    equal = f"; equivalent means within {margin(comparison)}" if margin(comparison) else ""
    about = f"{comparison.label}; {against}, at the {_epoch(comparison)}; {corrected}{equal}"
    shown = [i for i, arm in enumerate(arms) if arm.contrast is not None and arm.contrast.verdict.shows_difference]
    bold = frozenset((i, j) for i in shown for j in (2, 5))
    return Table(about, "lrrrrl", headings, [_difference(arm, comparison) for arm in arms], bold)


def _difference(arm: Arm, comparison: Comparison) -> list[str]:
    c, metric = arm.contrast, comparison.metric
    assert c is not None
    own = own_evidence(c, comparison)
    return [
        arm.label,
        str(c.pairs),
        signed(metric, c.difference.mean),
        difference_interval(metric, c.difference) or DASH,
        p_text(c.difference.p) if c.is_fair_sample and c.question == "better" else DASH,
        f"{c.verdict} ({own})" if own else c.verdict,
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
