"""A tree of runs -> one self-contained page, its figures, and the tables beside it."""

import gc
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from reg_sweep import __version__
from reg_sweep.comparison.compare import Comparison, make_comparisons
from reg_sweep.comparison.earlier import JUDGED_FILE, Earlier, read_earlier
from reg_sweep.comparison.question import QuestionError, asked_for
from reg_sweep.comparison.results import Epoch, Result
from reg_sweep.comparison.sentences import counts, nothing_to_compare
from reg_sweep.comparison.study_runs import StudyRuns, explored, match_runs
from reg_sweep.config.schema import NEAR_ZERO
from reg_sweep.readers.foreign import Wanted
from reg_sweep.report.account import page_error, sample_warning
from reg_sweep.report.canvas import drawn
from reg_sweep.report.document import write_latex
from reg_sweep.report.exports import (
    TableFacts,
    run_table,
    table_facts,
    write_runs_csv,
    write_runs_parquet,
    write_summary_csv,
    write_summary_md,
)
from reg_sweep.report.figures import theme
from reg_sweep.report.figures.textbook import textbook_pictures
from reg_sweep.report.figures.theme import FORMS, THEMES, Form, Picture
from reg_sweep.report.handout import HandoutError, require_own, write_handout
from reg_sweep.report.places import PAGE as PAGE
from reg_sweep.report.places import (
    ReadAs,
    SourceError,
    Sources,
    default_folder,
    keep_foreign,
    mark_of,
    own_question,
    place_of,
    public_root,
    read_sources,
    require_known,
    study_folder,
    unit_of,
)
from reg_sweep.report.places import ReportError as ReportError
from reg_sweep.report.progress import Progress
from reg_sweep.report.rows import N_RUNS_LISTED, run_rows
from reg_sweep.report.sections.data_set import DataSection, data_section
from reg_sweep.report.sections.study import N_STUDIES, StudySection, study_section
from reg_sweep.runs.files import staged
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.runs.record import RecordError
from reg_sweep.runs.study import read_studies
from reg_sweep.runs.validation import visible

OWN_TITLE = "Which regularizer, and how much?"
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # a label may hold them
N_PROBLEMS_LISTED = 30
N_WHOLE = 26  # characters of a label that fit the line of a headline on a narrow screen
_PART = r"(?:no )?[^\s·]+(?: -?\d[^\s,;:)·]*)?"
_LABEL = re.compile(rf"{_PART}(?: · {_PART})+")


@dataclass(frozen=True)
class Report:
    """Where the page is, and its verdict: in plain text, a line for each data set, and as data, a table for each."""

    page: Path
    verdict: str
    tables: Sequence[TableFacts] = ()
    handout: Path | None = None


def write_report(
    roots: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    baseline: str | None = None,
    metric: str | None = None,
    epoch: Epoch | None = None,
    margin: float | None = None,
    variance: str | None = None,
    question: str | None = None,
    pairing: str | None = None,
    error: str = "table",
    wanted: Wanted | None = None,
    together: bool = False,
    files: Sequence[Form] = ("svg",),
    latex: bool = False,
    handout: str | Path | None = None,
    progress: bool = True,
    typed: Sequence[str] = (),
) -> Report:
    """Reads every run under `roots` and writes the report into `out` (default: report/ in the first root).

    A root is a folder, or a file or address of another program's runs; `wanted` says how to read those. The page prints
    that reading as a command to change, with the options `typed`.

    The verdict's question is asked by the keywords from `baseline` to `error`, the fields of `question.Asked`. None
    means the value that a sequential study fixed beforehand. For other runs the defaults are test accuracy at the last
    epoch, moderated variances, and a margin of 0.001 (0.1 points) of accuracy; a loss has no default margin. A question
    that differs from the study's is exploratory, and so are judged runs that got or lost seeds since.

    Each study, and each combination of data, model, epochs and schedule, is a table with a baseline and a verdict of
    its own (`comparison.grouping`); `together` compares all runs of a data set except trials and sequential studies.

    `files` are the formats of the figures' files beside the page, SVG always among them: PNG and PDF take longer than
    everything else. `latex` writes the tables for a paper, `handout` a folder to hand in. `progress` is on stderr.

    An earlier report stays unchanged until all new files are written: a killed report or a full disk loses nothing.

    Raises:
        ReportError: a root is missing or holds no run, an option is out of its range, `out` or `handout` can't be
            written or hold other files; an earlier report's record of what it judged can't be read.
        ArmError: `baseline` names no arm, or several.
    """
    require_known("--files", FORMS, *files)
    roots = list(map(study_folder, roots))
    problems: list[str] = []
    shown, wanted = Progress(progress), wanted or Wanted()
    ask = partial(asked_for, variance=variance, question=question, pairing=pairing, baseline=baseline, error=error)
    try:
        ask(metric, epoch, margin, unit=unit_of(roots))
        require_own(handout, folder := place_of(roots, out))
        earlier = read_earlier([folder, *map(default_folder, roots)])
        sources = read_sources(roots, wanted, problems, shown, typed)
        own = (metric, epoch) if sources.read_as is not None else own_question(wanted, metric, epoch)
        asked = ask(*own, margin, unit=sources.unit)
    except (QuestionError, RecordError, SourceError, HandoutError) as wrong:
        raise ReportError(str(wrong)) from None
    written = _compared(sources, earlier, roots, problems, asked | {"together": together}, mark_of(folder, roots[0]))
    report = _written_into(folder, written, [form for form in FORMS if form == "svg" or form in files], latex, shown)
    return report if handout is None else _with_handout(report, Path(handout), written, shown)


@dataclass(frozen=True)
class _Written:
    """The contents of a report. `judged` is the text of the file that lists for the next report what was judged.

    `asked_before` are the other questions that earlier reports asked of these runs. By `mark`, the next report
    recognizes a page about the same folder.
    """

    results: list[Result]
    comparisons: list[Comparison]
    studies: list[StudyRuns]
    judged: str
    asked_before: Sequence[str]
    roots: Sequence[str | Path]
    mark: str
    problems: list[str]
    read_as: ReadAs | None


def _compared(
    sources: Sources,
    earlier: Earlier,
    roots: Sequence[str | Path],
    problems: list[str],
    asked: dict[str, Any],
    mark: str,
) -> _Written:
    """The tables of all runs, judged.

    Raises:
        ReportError: a single error over all tables was asked for, and there is only one table.
    """
    results, found = sources.results, read_studies(*sources.folders, problems=problems)
    studies = [match_runs(n, study, results) for n, study in enumerate(found, 1)]
    trials = [run.path for run in explored(results, studies)]
    comparisons = make_comparisons(
        results, trials=trials, studies=studies, problems=problems, seen_before=earlier.reason, **asked
    )
    if asked["error"] == "all" and len(comparisons) < 2:
        raise ReportError("--error must be table where the page has a single table, got all: leave it out")
    judged, others = earlier.with_judged(comparisons).text(), earlier.other_questions(comparisons)
    named = list(map(public_root, roots))
    return _Written(results, comparisons, studies, judged, others, named, mark, problems, sources.read_as)


def _written_into(folder: Path, facts: _Written, forms: list[Form], latex: bool, shown: Progress) -> Report:
    """Writes the report's files, all or none.

    Raises:
        ReportError: the folder can't be written.
    """
    is_new = not folder.exists()
    try:
        with _rarely_collected(), staged(folder, last=PAGE) as staging:
            place = _Place(folder, staging, forms)
            parts = _write_parts(facts.comparisons, facts.studies, place, facts.roots, facts.problems, shown)
            verdicts = _write_texts(parts, facts, place)
            (staging / JUDGED_FILE).write_text(facts.judged, encoding="utf-8")
            if latex:
                write_latex(staging, facts.comparisons)
            keep_foreign(place.folder, place.staging)
    except OSError as error:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        kept = "" if is_new else "; nothing there was changed"
        what = f"{folder}: {error.strerror or error}{kept}"
        raise ReportError(f"--out must name a folder that can be written, got {what}") from None
    tables = [table_facts(comparison, s) for comparison, s in zip(facts.comparisons, parts.sections, strict=True)]
    return Report(folder / PAGE, "\n".join(verdicts), tables)


def _with_handout(report: Report, folder: Path, facts: _Written, shown: Progress) -> Report:
    try:
        text = write_handout(folder, facts.comparisons, facts.results, facts.problems, facts.roots, shown)
    except HandoutError as wrong:
        raise ReportError(f"{wrong}; the report itself is written: {report.page}") from None
    return replace(report, handout=text)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Collects garbage rarely: figures are many small objects, and collecting them would waste a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True)
class _Place:
    """The page's final folder, which its links refer to, and the folder its files are first written to.

    `forms` are those that its figures have beside it.
    """

    folder: Path
    staging: Path
    forms: list[Form]


def _write_texts(parts: "_Parts", written: _Written, place: _Place) -> list[str]:
    """Writes the tables and the page; returns the verdicts."""
    results, comparisons, roots = written.results, written.comparisons, written.roots
    n_by_status = Counter(r.status for r in results)
    verdicts = _verdicts(parts.sections) or [nothing_to_compare(n_by_status)]
    sample = sample_warning(comparisons)
    write_summary_csv(place.staging / "summary.csv", comparisons)
    runs = run_table(results, comparisons)
    write_runs_csv(place.staging / "runs.csv", runs)
    write_runs_parquet(place.staging / "runs.parquet", runs)
    write_summary_md(place.staging / "summary.md", parts.sections, verdicts, sample)
    facts = {
        "verdicts": verdicts,
        "sample": sample,
        "page_error": page_error(comparisons, written.asked_before),
        "n_tables": len(parts.sections) + len(parts.studies),
        "can_join": len({c.data for c in comparisons}) < len(comparisons),
        "forms": place.forms,
        "counts": counts(n_by_status),
        "n_runs": len(results),
        "runs": run_rows(results, comparisons, place.folder, roots),
        "read_as": written.read_as,
        "has_images": all(c.has_images for c in comparisons),
        "title": OWN_TITLE if any(c.has_images for c in comparisons) or not comparisons else "Which is better?",
        "mark": written.mark,
    }
    text = _rendered(parts, roots, written.problems, facts)
    # A folder's name need not be text.
    (place.staging / PAGE).write_text(text, encoding="utf-8", errors="backslashreplace")
    read_as = written.read_as
    if read_as is None:
        return verdicts
    return [f"Read as: {read_as.said}", f"To read it differently, change: {read_as.command}", *read_as.notes, *verdicts]


def _rendered(parts: "_Parts", roots: Sequence[str | Path], problems: list[str], facts: Mapping[str, Any]) -> str:
    """The page's text: its parts, the given facts of all runs, and the page's own version and date."""
    distinct = list(dict.fromkeys(problems))
    svgs, sheet = theme.shared_styles(parts.svgs)
    return _template().render(
        **vars(parts) | {"svgs": {name: Markup(svg) for name, svg in svgs.items()}},
        **facts,
        sheet=Markup(sheet),
        roots=[str(r) for r in roots],
        problems=distinct[:N_PROBLEMS_LISTED],
        n_problems=len(distinct),
        n_runs_listed=min(facts["n_runs"], N_RUNS_LISTED),
        near_zero=NEAR_ZERO,
        themes=THEMES,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


@dataclass(frozen=True)
class _Parts:
    """The drawn parts of the page: a section for each data set, studies that belong to none, explanatory pictures.

    `svgs` are the pictures themselves, by id.
    """

    sections: list[DataSection]
    studies: list[StudySection]
    n_studies_left_out: int
    textbook: list[Picture]
    svgs: dict[str, str]


def _write_parts(
    comparisons: list[Comparison],
    studies: list[StudyRuns],
    place: _Place,
    roots: Sequence[str | Path],
    problems: list[str],
    progress: Progress,
) -> _Parts:
    """Makes every section, and writes the files of their pictures."""
    sections = []
    searches = [s for s in studies if s.is_search]
    for number in range(1, len(comparisons) + 1):
        progress.at(f"making table {number:,} of {len(comparisons):,}")
        sections.append(data_section(number, comparisons, searches, place.folder, roots, problems))
    shown_studies = {c.study.number for c in comparisons if c.study is not None}
    homeless = [s for s in studies if s.number not in shown_studies]
    others = [study_section(s, place.folder, comparisons) for s in homeless[:N_STUDIES]]
    textbook = textbook_pictures() if any(c.measured and c.has_images for c in comparisons) else []
    shown = [picture for s in sections for picture in s.pictures]
    shown += [*(picture for s in others for picture in s.pictures), *textbook]
    svgs = _write_pictures(shown, place, progress)
    return _Parts(sections, others, max(len(homeless) - N_STUDIES, 0), textbook, svgs)


def _write_pictures(pictures: list[Picture], place: _Place, progress: Progress) -> dict[str, str]:
    """Writes each picture in the requested formats; returns the page's SVGs by picture id."""
    inline = {}
    ready = zip(pictures, drawn(pictures, place.forms), strict=True)
    for picture, its in progress.over(ready, "drawing", "picture", len(pictures)):
        for form, content in its.files.items():
            if form == "svg":
                content = _NOT_IN_XML.sub("\ufffd", content.decode()).encode()
            (place.staging / f"{picture.name}.{form}").write_bytes(content)
        inline[picture.id] = its.inline
    return inline


def _verdicts(sections: list[DataSection]) -> list[str]:
    """A line for each data set, named if there are several."""
    lines = []
    for s in sections:
        more = f"{s.to_do}: {'; '.join(s.commands)}" if s.commands else ""
        said = " ".join(part for part in (s.finding, s.evidence, more) if part)
        lines.append(f"{s.label}: {said}" if len(sections) > 1 else said)
    return lines


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("reg_sweep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,  # the names of folders, above all
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters["thousands"] = lambda n: f"{n:,}"
    environment.filters["number"] = lambda_text
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("report.html.jinja")


def _unbroken(text: str) -> Markup:
    """A sentence whose numbers never wrap, and its labels only between their parts, or not at all if they are short.

    A label alone, as a table's column has it, may wrap in any case.
    """
    text = visible(text)
    sentence = _LABEL.sub(lambda found: _whole(found[0], is_alone=len(found[0]) == len(text)), text)
    joined = str(escape(re.sub(r"(?<=L[12]) (?=\d)| (?=[·%])|(?<=\bp) (?=[=<])|(?<=\bp [=<]) ", "\u00a0", sentence)))
    return Markup(re.sub(r"\d[\d.]*e-\d+", r'<span class="whole">\g<0></span>', joined))


def _whole(label: str, *, is_alone: bool) -> str:
    """A label that stays on a line, or one whose settings stay with their values: 'lr 0.1'."""
    is_short = len(label) <= N_WHOLE and not is_alone
    return re.sub(" " if is_short else r" (?=-?\d)", "\u00a0", label)
