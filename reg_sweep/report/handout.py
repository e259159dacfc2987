"""A handout: one complete folder of figures for print and a text in Markdown and LaTeX.

The text's conclusions are the page's, from `comparison.conclusions`; nothing here decides a verdict.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from reg_sweep import __version__
from reg_sweep.comparison.commands import seeds_to_train
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.conclusions import TO_RESUME, conclusions
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import count, counts, nothing_to_compare, verdict
from reg_sweep.report.account import sample_warning
from reg_sweep.report.canvas import drawn
from reg_sweep.report.document import (
    FIGURES,
    Block,
    Bullets,
    Code,
    Formulas,
    Heading,
    Image,
    Prose,
    arms_table,
    as_latex,
    as_markdown,
    differences_table,
)
from reg_sweep.report.figures.textbook import costs
from reg_sweep.report.figures.theme import Form, Picture
from reg_sweep.report.handout_figures import (
    HandoutFigures,
    figures_of,
    mistakes_name,
    shared_figures,
    shown_mistakes,
    slug,
)
from reg_sweep.report.method import method, question, title
from reg_sweep.report.places import require_possible
from reg_sweep.report.progress import Progress
from reg_sweep.runs.discovery import real_path
from reg_sweep.runs.files import is_unchanged, staged
from reg_sweep.runs.files import listed as listed_files

MARKDOWN, LATEX = "text.md", "text.tex"
FORMS: tuple[Form, ...] = ("png", "pdf")
_NOT_SAID = "What can't be said yet"


class HandoutError(ValueError):
    """A handout that can't be written. The message is one line: what, why, remedy."""


def require_own(out: str | Path | None, report: Path) -> None:
    """Refuses a handout's folder that is the report's, holds only other files, or holds a handout that was edited.

    Files beside an earlier handout are allowed. Without a folder nothing is refused.

    Raises:
        HandoutError: it is a file, holds files but no handout, or a file of its handout has been changed.
    """
    if out is None:
        return
    folder = Path(out)
    if out == "":
        raise HandoutError("--handout must name a folder, got '': name one, such as handout")
    if real_path(folder) == real_path(report):
        raise HandoutError(f"--handout must name another folder than the report's, got {out} for both")
    require_possible(folder, "--handout", HandoutError)
    if not folder.is_dir():
        return
    try:
        own, is_empty = listed_files(folder), not any(folder.iterdir())
        changed = [name for name, digest in own.items() if _is_changed(folder / name, digest)]
    except OSError as error:
        raise HandoutError(f"--handout must name a folder that can be read, got {folder}: {error.strerror}") from None
    if not is_empty and MARKDOWN not in own:
        raise HandoutError(
            f"--handout must name a new or empty folder, or that of an earlier handout, got {folder}, which holds "
            "other files: name another"
        )
    if changed:
        raise HandoutError(
            "--handout must not replace your changes, got a file changed since the handout was made, "
            f"{folder / changed[0]}: rename it or name another folder"
        )


def _is_changed(path: Path, digest: str) -> bool:
    return path.exists() and not is_unchanged(path, digest)


def write_handout(
    folder: Path,
    comparisons: Sequence[Comparison],
    results: Sequence[Result],
    problems: list[str],
    roots: Sequence[str | Path],
    progress: Progress,
) -> Path:
    """Writes figures and text into `folder`, which `require_own` has checked, all or none; returns the text's path.

    Raises:
        HandoutError: it would replace files that no handout wrote, or the folder can't be written.
    """
    is_new = not folder.exists()
    try:
        with staged(folder, last=MARKDOWN) as staging:
            name, blocks, pictures = _document(comparisons, results, problems, roots)
            (staging / FIGURES).mkdir()
            ready = zip(pictures, drawn(pictures, FORMS), strict=True)
            for picture, its in progress.over(ready, "drawing the handout", "figure", len(pictures)):
                for form in FORMS:
                    (staging / FIGURES / f"{picture.name}.{form}").write_bytes(its.files[form])
            (staging / MARKDOWN).write_text(as_markdown(name, blocks), encoding="utf-8", errors="backslashreplace")
            (staging / LATEX).write_text(as_latex(name, blocks), encoding="utf-8", errors="backslashreplace")
            _keep_foreign(folder, staging)
    except OSError as error:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        kept = "" if is_new else "; nothing there was changed"
        what = f"{folder}: {error.strerror or error}{kept}"
        raise HandoutError(f"--handout must name a folder that can be written, got {what}") from None
    return folder / MARKDOWN


def _keep_foreign(folder: Path, staging: Path) -> None:
    """Refuses to replace files that no earlier handout wrote."""
    own = listed_files(folder)
    for path in sorted(staging.rglob("*")):
        name = path.relative_to(staging).as_posix()
        there = folder / name
        if (path.is_file() and name not in own and there.exists()) or (path.is_dir() and there.is_symlink()):
            raise HandoutError(
                f"--handout must not replace files of yours, got {there}: rename it or name another folder"
            )


# ---- the document


def _document(
    comparisons: Sequence[Comparison], results: Sequence[Result], problems: list[str], roots: Sequence[str | Path]
) -> tuple[str, list[Block], list[Picture]]:
    """Title, text and pictures. A section for each comparison, if there are several."""
    measured = [c for c in comparisons if c.measured]
    forms = {str(arm.config["penalty"]["name"]) for c in measured if c.has_images for arm in c.measured}
    pictures = shared_figures(forms) if forms else []
    shared, blocks = list(pictures), list[Block]()
    if warning := sample_warning(list(comparisons)):
        blocks.append(Prose(warning, "Warning"))
    prefixes = _prefixes(measured)
    for n, comparison in enumerate(measured, 1):
        found = figures_of(comparison, n, prefixes[n - 1], problems)
        level = 1
        if len(measured) > 1:
            level = 2
            blocks.append(Heading(comparison.label))
        blocks += _section(comparison, found, shared if comparison.has_images else [], forms, prefixes[n - 1], level)
        pictures += found.all
        shared = [] if comparison.has_images else shared
    blocks += _left_out(comparisons, results, problems, has_results=bool(measured))
    blocks.append(Prose(f"Made by reg_sweep {__version__} from {listed([str(root) for root in roots])}."))
    name = title(measured[0]) if len(measured) == 1 else "Which regularizer, and how much of it?"
    return name, blocks, pictures


def _prefixes(comparisons: Sequence[Comparison]) -> list[str]:
    """Prefix of the names of a comparison's figures; empty if it is the only one."""
    if len(comparisons) == 1:
        return [""]
    labels = [slug(c.label) for c in comparisons]
    return [f"{label}-" if labels.count(label) == 1 else f"{label}-{n}-" for n, label in enumerate(labels, 1)]


def _section(
    comparison: Comparison,
    found: HandoutFigures,
    shared: Sequence[Picture],
    forms: Collection[str],
    prefix: str,
    level: int,
) -> Iterator[Block]:
    finding, evidence = verdict(comparison)
    paragraphs = conclusions(comparison).paragraphs
    said = [p for p in paragraphs if p.heading != _NOT_SAID]
    yield Heading("Question", level)
    yield Prose(question(comparison))
    yield Prose(f"{finding} {evidence}".strip(), "Answer")
    yield Heading("Method", level)
    yield from (Prose(p.text, p.heading) for p in method(comparison))
    if shared:
        rows, symbols = costs(forms)
        yield Prose(symbols, "Cost functions")
        yield Formulas([(name, cost) for name, cost, _ in rows])
    yield from _images([*found.method, *shared])
    yield Heading("Results", level)
    yield arms_table(comparison)
    if any(arm.contrast is not None for arm in comparison.measured):
        yield differences_table(comparison)
    yield from _images(found.results)
    wrong = {mistakes_name(arm, comparison, prefix) for arm in shown_mistakes(comparison)}
    yield from _images([*found.curves, *(p for p in found.mistakes if p.name in wrong)])
    if others := [p.name for p in found.mistakes if p.name not in wrong]:
        yield Prose(f"The mistakes of the other arms are in {FIGURES}/: {listed(others)}.")
    yield Heading("Conclusions", level)
    yield from (Prose(p.text, p.heading) for p in said)
    if not said:
        yield Prose(f"{finding} {evidence}".strip())
    yield Heading("What can't be said, and why", level)
    yield from (Prose(p.text) for p in paragraphs if p.heading == _NOT_SAID)
    missing = [f"This handout has {why}." for why in found.missing]
    if items := [*notes(comparison), *missing]:
        yield Bullets(items)
    if to_run := seeds_to_train(comparison):
        yield Prose("To train more seeds, type:")
        yield Code(to_run)


def _images(pictures: Sequence[Picture]) -> Iterator[Block]:
    return (Image(p.name, p.caption) for p in pictures)


def _left_out(
    comparisons: Sequence[Comparison], results: Sequence[Result], problems: list[str], *, has_results: bool
) -> Iterator[Block]:
    """Files and runs in no table: trials of searches, runs without an end, unreadable files."""
    items = []
    n_trials = sum(len(c.trials) for c in comparisons)
    if n_trials:
        items.append(
            f"{count(n_trials, 'trial')} of searches are exploratory and not judged: they are on the report's page."
        )
    unfinished = Counter(r.status for r in results if r.status not in ("complete", "pruned"))
    if unfinished:
        reasons = sorted({r.message for r in results if r.status in ("failed", "diverged") and r.message})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        items.append(f"Runs that did not complete: {counts(unfinished)}{why}.")
        if unfinished["failed"] or unfinished["running"]:
            items.append(f"To complete them, {TO_RESUME}.")
    distinct = list(dict.fromkeys(problems))
    if distinct:
        more = f", and {len(distinct) - 1} more" if len(distinct) > 1 else ""
        items.append(f"Files that could not be used: {distinct[0]}{more}.")
    if not has_results:
        judged = Counter(r.status for r in results if r.data is None)
        judged.update(status for c in comparisons for status in c.n_by_status.elements())
        yield Prose(nothing_to_compare(judged, n_trials))
    if items:
        yield Heading("What was left out")
        yield Bullets(items)
