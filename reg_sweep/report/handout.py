"""A handout: one folder with figures for print and a text, in Markdown and LaTeX, that need nothing more to be drawn.

The text's conclusions are the page's, from `comparison.conclusions`; nothing here decides a verdict.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reg_sweep import __version__
from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.claims import is_exercise
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.conclusions import Paragraph, conclusions, in_words
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import (
    commands,
    count,
    counts,
    listed,
    margin,
    nothing_to_compare,
    sample_warning,
    spelled,
    verdict,
    words,
)
from reg_sweep.report.document import FIGURES, Block, Bullets, Formulas, Heading, Image, Prose, as_latex, as_markdown
from reg_sweep.report.drawing import drawn
from reg_sweep.report.figures.textbook import COSTS
from reg_sweep.report.figures.theme import Form, Picture
from reg_sweep.report.handout_figures import (
    HandoutFigures,
    figures_of,
    mistakes_name,
    shared_figures,
    shown_mistakes,
    slug,
)
from reg_sweep.report.latex import arms_table, differences_table
from reg_sweep.report.progress import Progress
from reg_sweep.runs.files import is_unchanged, staged
from reg_sweep.runs.files import listed as listed_files

MARKDOWN, LATEX = "text.md", "text.tex"
FORMS: tuple[Form, ...] = ("png", "pdf")
_NOT_SAID = "What can't be said yet"


class HandoutError(ValueError):
    """A handout that can't be written. The message is one line: what, why, remedy."""


def require_own(out: str | Path | None, report: Path) -> None:
    """Refuses a handout's folder that is the report's, or holds anything but an earlier handout as it was written.

    Files that are not in its way may lie in it. Without a folder nothing is refused.

    Raises:
        HandoutError: it is a file, holds what reg_sweep did not write, or its reader has changed a file of the handout.
    """
    if out is None:
        return
    folder = Path(out)
    if out == "":
        raise HandoutError("--handout must name a folder, got '': name one, such as handout")
    if folder.resolve() == report.resolve():
        raise HandoutError(f"--handout must name another folder than the report's, got {out} for both")
    holder = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if holder is not None and not holder.is_dir():
        raise HandoutError(f"--handout must name a folder, got {folder}: {holder} is a file, name another place")
    if not folder.is_dir():
        return
    try:
        own, is_empty = listed_files(folder), not any(folder.iterdir())
        changed = [name for name, digest in own.items() if _is_changed(folder / name, digest)]
    except OSError as error:
        raise HandoutError(f"--handout must name a folder that can be read, got {folder}: {error.strerror}") from None
    if not is_empty and MARKDOWN not in own:
        raise HandoutError(
            f"--handout must name a new or empty folder, or that of an earlier handout, got {folder}: it holds other "
            "files, name another"
        )
    if changed:
        raise HandoutError(
            f"--handout must not replace what you have written: {folder / changed[0]} has changed since the handout "
            "was made, rename it or name another folder"
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
    """Writes figures and text into `folder`, which `require_own` has let pass, all or none; returns the text's path.

    Raises:
        HandoutError: it would replace files that no handout wrote, or the folder can't be written.
    """
    is_new = not folder.exists()
    try:
        with staged(folder, last=MARKDOWN) as staging:
            title, blocks, pictures = _document(comparisons, results, problems, roots)
            (staging / FIGURES).mkdir()
            ready = zip(pictures, drawn(pictures, FORMS), strict=True)
            for picture, its in progress.over(ready, "drawing the handout", "figure", len(pictures)):
                for form in FORMS:
                    (staging / FIGURES / f"{picture.name}.{form}").write_bytes(its.files[form])
            (staging / MARKDOWN).write_text(as_markdown(title, blocks), encoding="utf-8", errors="backslashreplace")
            (staging / LATEX).write_text(as_latex(title, blocks), encoding="utf-8", errors="backslashreplace")
            _keep_foreign(folder, staging)
    except OSError as error:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        kept = "" if is_new else "; what was there stays"
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
    pictures = shared_figures() if any(c.has_images for c in measured) else []
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
        blocks += _section(comparison, found, shared if comparison.has_images else [], prefixes[n - 1], level)
        pictures += found.all
        shared = [] if comparison.has_images else shared
    blocks += _left_out(comparisons, results, problems, has_results=bool(measured))
    blocks.append(Prose(f"Made by reg_sweep {__version__} from {listed([str(root) for root in roots])}."))
    title = _title(measured[0]) if len(measured) == 1 else "Which regularizer, and how much of it?"
    return title, blocks, pictures


def _prefixes(comparisons: Sequence[Comparison]) -> list[str]:
    """What the names of a comparison's figures begin with: nothing if it is the only one."""
    if len(comparisons) == 1:
        return [""]
    labels = [slug(c.label) for c in comparisons]
    return [f"{label}-" if labels.count(label) == 1 else f"{label}-{n}-" for n, label in enumerate(labels, 1)]


def _section(
    comparison: Comparison, found: HandoutFigures, shared: Sequence[Picture], prefix: str, level: int
) -> Iterator[Block]:
    finding, evidence = verdict(comparison)
    paragraphs = conclusions(comparison).paragraphs
    said = [p for p in paragraphs if p.heading != _NOT_SAID]
    yield Heading("Question", level)
    yield Prose(_question(comparison))
    yield Prose(f"{finding} {evidence}".strip(), "Answer")
    yield Heading("Method", level)
    yield from (Prose(p.text, p.heading) for p in _method(comparison))
    if shared:
        yield Prose(
            "J is the mean cross-entropy over the N images of a batch, p the probability of the true class. The sums "
            "are over all penalized weights w; the notebook's L1 takes the mean over each tensor t of n weights.",
            "Cost functions",
        )
        yield Formulas([(name, cost) for name, cost, _ in COSTS])
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
    if to_run := commands(comparison):
        yield Prose("; ".join(to_run), "To train more seeds, type")


def _images(pictures: Sequence[Picture]) -> Iterator[Block]:
    return (Image(p.name, p.caption) for p in pictures)


def _left_out(
    comparisons: Sequence[Comparison], results: Sequence[Result], problems: list[str], *, has_results: bool
) -> Iterator[Block]:
    """What of the folder is not in any table: trials of searches, runs without an end, unreadable files."""
    items = []
    n_trials = sum(len(c.trials) for c in comparisons)
    if n_trials:
        items.append(
            f"{count(n_trials, 'trial')} of searches explore and are not judged: they are on the report's page."
        )
    unfinished = Counter(r.status for r in results if r.status not in ("complete", "pruned"))
    if unfinished:
        reasons = sorted({r.message for r in results if r.status in ("failed", "diverged") and r.message})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        items.append(f"Runs that did not complete: {counts(unfinished)}{why}. Repeat their command to resume them.")
    distinct = list(dict.fromkeys(problems))
    if distinct:
        more = f", and {len(distinct) - 1} more" if len(distinct) > 1 else ""
        items.append(f"Files that could not be used: {distinct[0]}{more}.")
    if not has_results:
        yield Prose(nothing_to_compare(Counter(r.status for r in results), n_trials))
    if items:
        yield Heading("What was left out")
        yield Bullets(items)


# ---- question and method


def _varied(comparison: Comparison) -> list[str]:
    if not comparison.has_images:
        return []
    arms = comparison.measured
    varied = [key.upper() for key in ("l1", "l2") if len({arm.config[key] for arm in arms}) > 1]
    norms = {str(arm.config["norm"]["name"]) for arm in arms}
    if len(norms) > 1:
        varied.append("ghost batch norm" if norms == {"bn", "gbn"} else "the normalization layer")
    return varied


def _title(comparison: Comparison) -> str:
    if not comparison.has_images:
        return f"{count(len(comparison.measured), 'arm')} compared: {comparison.label}"
    varied = listed(_varied(comparison)) or "One arm"
    kinds = {str(arm.config["penalty"]["name"]) for arm in comparison.measured}
    norms = {str(arm.config["norm"]["name"]) for arm in comparison.measured}
    exercise = ""
    if is_exercise(comparison) and len(comparison.measured) > 2:
        if kinds == {"notebook"}:
            exercise = "Exercise B: "
        elif kinds == {"textbook"} and norms == {"bn", "gbn"}:
            exercise = "Exercise A: "
    return f"{exercise}{varied[:1].upper() + varied[1:]} on {comparison.data.name}"


def _question(comparison: Comparison) -> str:
    base, varied = comparison.baseline, _varied(comparison)
    if base is not None and not comparison.has_images:
        return f"Which arm has the best {words(comparison.metric)}, and by how much is it better than {base.label}?"
    if base is None or len(comparison.measured) < 2:
        return f"How well does one arm classify the images of {comparison.data.name}?"
    what, images = _network(comparison), f"the images of {comparison.data.name}"
    if not varied:
        return f"Which of {len(comparison.measured)} settings lets {what} classify {images} best?"
    do = "Do" if len(varied) > 1 else "Does"
    together = f"{listed(varied)}, alone or together," if len(varied) > 1 else varied[0]
    strengths = {key.upper(): {arm.config[key] for arm in comparison.measured} - {0} for key in ("l1", "l2")}
    several = [name for name, its in strengths.items() if len(its) > 1]
    how_much = f" And how much {listed(several)} is best?" if several else ""
    return f"{do} {together} make {what} better at classifying {images} than {in_words(base)}?{how_much}"


def _network(comparison: Comparison) -> str:
    if is_exercise(comparison):
        return "the exercises' small convolutional network"
    base = comparison.baseline
    model = base.config.get("model") if base is not None else None
    target = str(model.get("_target_", "")) if isinstance(model, dict) else ""
    return f"the network {target.rpartition('.')[2]}" if target else "the network"


def _method(comparison: Comparison) -> Iterator[Paragraph]:
    base, held = comparison.baseline, comparison.held_fixed
    assert base is not None  # of arms with complete runs one is the baseline
    if not comparison.has_images:
        yield Paragraph("Arms", f"{count(len(comparison.measured), 'arm')}, each against {base.label}.")
        yield Paragraph("Comparison", _judged(comparison))
        return
    first = base.replicates[0]
    network = _network(comparison)
    size = f"{network[:1].upper()}{network[1:]}"
    if first.n_parameters:
        size += f", with {first.n_parameters:,} parameters"
    yield Paragraph("Network", f"{size}.")
    yield Paragraph("Images", _images_used(comparison, held))
    yield Paragraph("Training", _training(held))
    yield Paragraph("Arms", _arms(comparison, base, held))
    yield Paragraph("Comparison", _judged(comparison))


def _images_used(comparison: Comparison, held: dict[str, Any]) -> str:
    data = comparison.data
    n = [(data.n_train, "train"), (data.n_val or None, "val"), (data.n_test, "test")]
    said = f"{data.name} ({data.source}): {listed([f'{k:,} {split}' for k, split in n if k is not None])} images"
    if data.label_noise:
        said += f", {100 * data.label_noise:g}% of the train labels wrong"
    changes = [
        (f"rotation by up to {_number(held.get('data.rotation'))} degrees", held.get("data.rotation")),
        (f"brightness by up to {_percent(held.get('data.brightness'))}", held.get("data.brightness")),
        (f"contrast by up to {_percent(held.get('data.contrast'))}", held.get("data.contrast")),
        ("horizontal flips", held.get("data.flip")),
        (f"crops shifted by up to {held.get('data.crop')} pixels", held.get("data.crop")),
    ]
    augmented = [text for text, size in changes if size]
    said += f". Train images are varied at random in each epoch: {', '.join(augmented)}." if augmented else "."
    if not data.n_val:
        said += " No images are held out for validation: the test images are evaluated after each epoch."
    return said


def _number(x: Any) -> str:
    return f"{x:g}" if isinstance(x, int | float) else str(x)


def _percent(share: Any) -> str:
    return f"{100 * share:g}%" if isinstance(share, int | float) else ""


def _training(held: dict[str, Any]) -> str:
    optimizer = str(held.get("optimizer.name", "")).upper()
    found = [
        (optimizer, optimizer),
        (f"learning rate {held.get('optimizer.lr')}", held.get("optimizer.lr")),
        (f"momentum {held.get('optimizer.momentum')}", held.get("optimizer.momentum")),
        (f"{held.get('schedule.name')} schedule", held.get("schedule.name")),
        (f"batches of {held.get('batch_size')}", held.get("batch_size")),
        (f"{held.get('epochs')} epochs", held.get("epochs")),
    ]
    said = ", ".join(text for text, value in found if value)
    penalty = {
        "textbook": "L1 and L2 act on the weights of convolutions and linear layers, in the textbook's form",
        "notebook": "L1 and L2 act on all parameters, in the notebook's form: L1 by each tensor's mean",
    }.get(str(held.get("penalty.name")), "")
    return " ".join(f"{part}." for part in (said, penalty) if part) or "The arms share no setting of their training."


def _arms(comparison: Comparison, base: Arm, held: dict[str, Any]) -> str:
    others = [arm.label for arm in comparison.measured if arm is not base]
    said = f"The baseline is {in_words(base)}"
    if others:
        said += f"; {'one other arm' if len(others) == 1 else f'{spelled(len(others)).lower()} other arms'}: "
        said += f"{'; '.join(others[:20])}{f' and {len(others) - 20} more' if len(others) > 20 else ''}"
    seeds = sorted({seed for arm in comparison.measured for seed in arm.seeds})
    said += (
        f". Seeds: {listed([str(s) for s in seeds[:10]])}{f' and {len(seeds) - 10} more' if len(seeds) > 10 else ''}"
    )
    return f"{said}. The same seed gives every arm the same initial weights, batches, augmentation and dropout masks."


def _judged(comparison: Comparison) -> str:
    metric = words(comparison.metric)
    at = (
        "the judged step"
        if not comparison.has_images
        else "the last epoch"
        if comparison.epoch == "last"
        else "the epoch of the lowest val loss"
    )
    if comparison.n_seeds < 2:
        return f"{metric.capitalize()} at {at}, of two trained networks, by McNemar's exact test over the test images."
    how = "interim analyses of a sequential study" if comparison.design is not None else "one analysis"
    level = 5.0 if comparison.judgement is None else 100 * comparison.judgement.alpha
    equal = f" A difference within {margin(comparison)} does not matter." if margin(comparison) else ""
    return (
        f"{metric.capitalize()} at {at}, arm by arm against the baseline, paired by seed: {comparison.variance} paired "
        f"t tests in {how}, with one error of {level:g}% over "
        f"all arms.{equal} The best arm is chosen on {comparison.selected_on}."
    )
