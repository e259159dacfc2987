"""A short document in Markdown and in LaTeX, from the same blocks: headings, prose, lists, tables, figures."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from reg_sweep.report.latex import Table, escaped
from reg_sweep.runs.validation import visible


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
        if isinstance(block, Heading) and has_figures:  # which stay in their section
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
            inside = ["\\centering\\footnotesize", block.latex.rstrip(), rf"\caption{{{_latex_text(block.about)}.}}"]
            return "\n".join([r"\begin{table}[htbp]", *inside, r"\end{table}"])
        case Image(name, caption):
            drawn, said = rf"\includegraphics{{{FIGURES}/{name}.pdf}}", rf"\caption{{{_latex_text(caption)}}}"
            return "\n".join([r"\begin{figure}[htbp]", r"\centering", drawn, said, r"\end{figure}"])
        case Formulas(rows):
            lines = [rf"\text{{{_latex_text(name)}:}} && {formula} \\" for name, formula in rows]
            return "\n".join([r"\begin{align*}", *lines, r"\end{align*}"])
        case Code(lines):
            typed = (part for line in lines for part in textwrap.wrap(visible(line), 72, subsequent_indent="    "))
            return "\n".join([r"\begin{footnotesize}\begin{verbatim}", *typed, r"\end{verbatim}\end{footnotesize}"])


def _latex_text(text: str) -> str:
    """Escaped text whose quotes open and close."""
    return re.sub(r"(?<![\w'])'(?=\w)", "`", escaped(text))
