"""The command: python -m reg_sweep.report PATH..."""

import argparse
import sys
import webbrowser
from collections.abc import Callable, Sequence
from typing import NoReturn

from reg_sweep.comparison.question import ArmError
from reg_sweep.readers.foreign import Wanted
from reg_sweep.report.exports import FAILURES, as_json, failures
from reg_sweep.report.figures.theme import FORMS
from reg_sweep.report.page import ReportError, write_report
from reg_sweep.runs.streams import open_closed_streams, say
from reg_sweep.runs.validation import visible

FAILED = 3  # the exit code of --fail-if


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report, prints its verdict and where it is.

    Returns the exit code: 2 if there is nothing to report on, 3 if `--fail-if` names what was found, 1 if the report is
    written but its verdict could not be printed. A closed pipe is not an error: its reader has read enough.
    """
    open_closed_streams()
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        report = write_report(
            arguments.roots,
            arguments.out,
            baseline=arguments.baseline,
            metric=arguments.metric,
            epoch=arguments.epoch,
            margin=arguments.margin,
            variance=arguments.variance,
            question=arguments.question,
            pairing=arguments.pairing,
            error=arguments.error,
            wanted=_wanted(arguments),
            together=arguments.together,
            files=arguments.files,
            latex=arguments.latex,
            handout=arguments.handout,
            typed=_typed(parser, arguments),
        )
    except (ReportError, ArmError) as error:
        say(f"reg_sweep.report: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("reg_sweep.report: stopped; an earlier report is unchanged", sys.stderr)
        return 130
    said = f"{report.verdict}\n{report.page}" + ("" if report.handout is None else f"\n{report.handout}")
    if arguments.json:
        said = as_json(report.page, report.verdict, report.tables)
    broken = say(said, sys.stdout)
    is_lost = broken is not None and not isinstance(broken, BrokenPipeError)  # whose reader has read enough
    if broken is not None and is_lost:
        why = broken.strerror or broken
        say(f"reg_sweep.report: {report.page} is written, but its verdict could not be printed: {why}", sys.stderr)
    found = failures(report.tables, arguments.fail_if)
    for reason in found:
        say(f"reg_sweep.report: --fail-if: {reason}", sys.stderr)
    if arguments.open:
        webbrowser.open(report.page.resolve().as_uri())
    return FAILED if found else 1 if is_lost else 0


class _Parser(argparse.ArgumentParser):
    """Refuses an argument in one line, without the usage, which is a screen long."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ").replace(": must", " must", 1)
        say(f"reg_sweep.report: {visible(said)} (--help lists the options)", sys.stderr)
        raise SystemExit(2)


def _typed(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """The options that were given, as a command repeats them, without those that say how runs are read."""
    found = []
    for name, value in vars(arguments).items():
        if name in ("roots", "score", "seed", "arm", "at") or value == parser.get_default(name):
            continue
        text = ",".join(value) if isinstance(value, list) else str(value)
        option = f"--{name.replace('_', '-')}"
        found += [option] if value is True else [f"{option}={text}"] if text.startswith("-") else [option, text]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m reg_sweep.report",
        description="Which is better, and by how much? One page from a tree of runs, or from anybody's scores.",
    )
    parser.add_argument(
        "roots",
        nargs="+",
        metavar="PATH",
        help="folders with runs, such as outputs/; for runs of other programs also a CSV file, or a tracker's folder "
        "or storage",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where the report goes (default: report/ in the first folder, or NAME-report/)"
    )
    _add_reading(parser)
    _add_question(parser)
    parser.add_argument(
        "--files",
        type=_some_of(FORMS),
        default=["svg"],
        metavar="FORMS",
        help=f"formats of the figures' files beside the page, from {','.join(FORMS)} (default: svg, the fastest)",
    )
    parser.add_argument("--latex", action="store_true", help="write arms.tex and differences.tex for a paper")
    parser.add_argument(
        "--handout",
        metavar="DIR",
        help="write a folder to hand in: text.md, text.tex, and figures/ for print (PNG at 300 dpi, and PDF)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument(
        "--fail-if",
        type=_some_of(FAILURES),
        default=[],
        metavar="FOUND",
        help=f"exit with code {FAILED} if an arm is shown worse than the baseline (worse), "
        "or if nothing is shown about an arm (undecided); both: worse,undecided",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def _add_question(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the question: the baseline, the metric, the margin and the test."""
    parser.add_argument(
        "--baseline",
        metavar="ARM",
        help="an arm's label, or settings such as norm=bn,l1=0,l2=0 (default: no L1, no L2)",
    )
    parser.add_argument(
        "--metric",
        metavar="METRIC",
        help="the metric that judges arms: test_accuracy or test_loss; n_zero, n_near_zero, n_dead_kernels and "
        "n_dead_channels compare shares of weights, kernels or channels, without a verdict (default: test_accuracy)",
    )
    parser.add_argument(
        "--epoch", metavar="EPOCH", help="last, or best_val: the epoch with the best val loss (default: last)"
    )
    parser.add_argument(
        "--margin",
        type=_number,
        help="the largest difference that does not matter (default: 0.001 for accuracy, 0.1 points; none for a loss)",
    )
    parser.add_argument(
        "--variance",
        metavar="HOW",
        help="moderated: an arm's variance is shrunk towards the other arms'; plain: it is not (default: moderated)",
    )
    parser.add_argument(
        "--question",
        metavar="QUESTION",
        help="better (a difference, or none within the margin), or equivalent or not_worse alone (default: better)",
    )
    parser.add_argument("--pairing", metavar="HOW", help="seeds: pair arms by seed; none: do not pair (default: seeds)")
    parser.add_argument(
        "--error",
        metavar="OVER",
        default="table",
        help="table: 5%% for each table; all: one 5%% over all tables of the page (default: table)",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="compare across models, epochs and schedules: one table for each data set (default: one for each "
        "combination)",
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how to read the runs of other programs."""
    group = parser.add_argument_group(
        "runs of other programs", "What is not given is inferred, and the report says how."
    )
    group.add_argument("--score", metavar="NAME[:max]", help="the metric that judges, such as val_acc or val_loss:min")
    group.add_argument("--seed", metavar="NAME", help="the column or setting of seeds; none: runs have none")
    group.add_argument(
        "--arm",
        metavar="NAMES",
        help="the columns or settings that make an arm, such as lr,method (default: all that differ)",
    )
    group.add_argument(
        "--at",
        metavar="WHEN",
        help="where a run is judged: last, step=N, or best:METRIC such as best:val_loss (default: last)",
    )
    group.add_argument(
        "--metrics-file",
        metavar="NAME",
        help="a JSON or CSV file of metrics in the folders of a Hydra app, such as metrics.json",
    )
    group.add_argument("--source", metavar="KIND", help="the kind of source to read, where a folder holds several")


def _wanted(arguments: argparse.Namespace) -> Wanted:
    """The options about other programs' runs."""
    score, mark, direction = (arguments.score or "").rpartition(":")
    if not mark or direction not in ("min", "max"):
        score, direction = arguments.score, ""
    arms = None if arguments.arm is None else tuple(name.strip() for name in arguments.arm.split(",") if name.strip())
    return Wanted(
        score=score or None,
        higher_is_better={"max": True, "min": False}.get(direction),
        seed=arguments.seed,
        arms=arms,
        at=arguments.at,
        metrics_file=arguments.metrics_file,
        source=arguments.source,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def _some_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type for a comma-separated list of choices."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        for word in found:
            if word not in choices:
                raise argparse.ArgumentTypeError(f"must be some of {', '.join(choices)}, got {word!r}")
        return found

    return read
