"""The command: reg-sweep-loop init|baseline|try|record|status|report LEDGER, or python -m reg_sweep.loop."""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from reg_sweep.loop.ledger import Ledger, LedgerError
from reg_sweep.loop.program import SEED, ProgramError, ProgramResult, Source, run
from reg_sweep.runs.streams import open_closed_streams, say
from reg_sweep.stats.candidate import Answer, LoopError, Rules
from reg_sweep.stats.loop import BASELINE, Loop

KEEP, DISCARD, RUN, ERROR = 0, 1, 2, 3
EXIT = {"keep": KEEP, "discard": DISCARD, "run": RUN}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and prints a line per run. Exit codes: 0 keep, 1 discard, 2 run the printed seed, 3 error."""
    open_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    try:
        arguments = _parser().parse_args(words[:at])
        arguments.command = words[at + 1 :]
        return int(arguments.do(arguments))
    except (LedgerError, LoopError, ProgramError) as error:
        say(f"reg-sweep-loop: {error}", sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        say("reg-sweep-loop: stopped; the same command resumes it", sys.stderr)
        return ERROR
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whose reader wants no more
            say(f"reg-sweep-loop: {error}", sys.stderr)
        return ERROR


# ---- commands


def _init(a: argparse.Namespace) -> int:
    rules = Rules(a.error, a.control, a.higher, a.margin, a.max_seeds, a.first_seed)
    ledger = Ledger.begin(a.ledger, a.score, rules)
    better = "higher" if a.higher else "lower"
    _print(f"{ledger.path}: {ledger.score}, {better} is better. Next: reg-sweep-loop baseline {ledger.path} -- COMMAND")
    return KEEP


def _baseline(a: argparse.Namespace) -> int:
    ledger, source = Ledger(a.ledger), _checked(a)
    with ledger.held() as loop:
        answer = loop.ask(BASELINE)
    while answer.verdict == "run":
        answer = _run_once(ledger, a, source, answer, may_fail=a.skip_failed)
    return _answered(a, answer)


def _try(a: argparse.Namespace) -> int:
    ledger, source, how = Ledger(a.ledger), _checked(a), _how(a)
    if a.change == BASELINE:
        raise LoopError(f"--change must not be {BASELINE!r}: to measure the baseline, run reg-sweep-loop baseline")
    with ledger.held() as loop:
        kept, answer = loop.baseline.change, loop.ask(a.change, **how)
    if answer.change == BASELINE and kept != a.change:
        raise LoopError(_unmeasured(a, kept, answer))
    while answer.verdict == "run":
        answer = _run_once(ledger, a, source, answer, may_fail=True)
        if answer.verdict == "keep" and answer.change != BASELINE:
            _print(
                f"keep {a.change}: {answer.reason}; now running the fresh seeds that the next change is compared with"
            )
        with ledger.held() as loop:
            if answer.verdict != "discard":
                answer = loop.ask(BASELINE if loop.baseline.missing else a.change, **how)
    return _answered(a, answer)


def _unmeasured(a: argparse.Namespace, kept: str, answer: Answer) -> str:
    what = "the baseline" if kept == BASELINE else f"the kept change {kept!r}"
    return f"{what} must be measured first, {answer.reason}: run reg-sweep-loop baseline {a.ledger} -- ... on its code"


def _run_once(ledger: Ledger, a: argparse.Namespace, source: Source, asked: Answer, *, may_fail: bool) -> Answer:
    """Runs the requested seed and records its outcome; returns the next answer."""
    assert asked.seed is not None
    number, start = ledger.loop.baseline.number, time.monotonic()
    outcome = run(a.command, asked.seed, source, timeout=a.timeout, show=a.show)
    if outcome.failed is not None and not may_fail:
        what = f"the baseline must run, got {outcome.failed} on seed {asked.seed}"
        raise ProgramError(f"{what}: fix it, or add --skip-failed if it may fail on some seeds")
    entry = _entry(asked.change, asked.seed, outcome) | {"seconds": round(time.monotonic() - start, 3)}
    entry |= {"baseline": number} | (_how(a) if asked.change != BASELINE else {})
    with ledger.held() as loop:
        now = loop.ask(asked.change, **(_how(a) if asked.change != BASELINE else {}))
        if loop.baseline.number == number and not _wants(loop, now, asked):
            _print(f"seed {asked.seed}: another program recorded it first; its score stands")
            return now
        answer = ledger.add(entry)
    _print(f"seed {asked.seed}: {_outcome_text(outcome)}{_against(answer)}")
    return answer


def _wants(loop: Loop, now: Answer, asked: Answer) -> bool:
    if asked.change == BASELINE:
        return asked.seed in loop.baseline.missing
    return now.verdict == "run" and now.change == asked.change and now.seed == asked.seed


def _record(a: argparse.Namespace) -> int:
    ledger = Ledger(a.ledger)
    if (a.score is None) == (a.failed is None) and a.seed is not None:
        raise LoopError("a run needs either --score X or --failed REASON")
    if a.seed is None and (a.score, a.failed) != (None, None):
        raise LoopError("a score needs the --seed it was run with")
    how = _how(a) if a.change != BASELINE else {}
    with ledger.held() as loop:
        answer = loop.ask(a.change, **how)
        if a.seed is not None and answer.change != a.change:
            raise LoopError(f"the baseline must be measured first: record seed {answer.seed} of --change {BASELINE}")
        if a.seed is not None and answer.verdict == "run":
            answer = ledger.add(_entry(a.change, a.seed, ProgramResult(a.score, a.failed)) | how)
    return _answered(a, answer)


def _status(a: argparse.Namespace) -> int:
    from reg_sweep.loop.status import facts, one_change, text_of  # here, because most commands don't need it

    ledger = Ledger(a.ledger)
    found = one_change(ledger, a.change) if a.change is not None else facts(ledger, a.gain)
    _print(json.dumps(found, indent=1) if a.json else text_of(found))
    return KEEP


def _report(a: argparse.Namespace) -> int:
    from reg_sweep.loop.status import write_page

    ledger = Ledger(a.ledger)
    out = a.out if a.out is not None else a.ledger.with_name(a.ledger.name + ".html")
    try:
        write_page(ledger, out)
    except OSError as error:
        raise LedgerError(f"{out} can't be written: {error.strerror or error}") from None
    _print(str(out))
    return KEEP


# ---- entries and printed lines


def _entry(change: str, seed: int, outcome: ProgramResult) -> dict[str, Any]:
    if outcome.failed is None and outcome.score is not None and not math.isfinite(outcome.score):
        outcome = ProgramResult(failed="diverged")
    return {"change": change, "seed": seed, "score": outcome.score, "failed": outcome.failed}


def _how(a: argparse.Namespace) -> dict[str, Any]:
    return {"digest": a.digest, "question": a.question}


def _outcome_text(outcome: ProgramResult) -> str:
    return outcome.failed if outcome.failed is not None else f"{outcome.score:.6g}"


def _against(answer: Answer) -> str:
    if answer.mean is None:
        return f" ({answer.reason})" if answer.change == BASELINE else ""
    return f", {answer.mean:+.4g} against the baseline over {answer.n}"


def _answered(a: argparse.Namespace, answer: Answer) -> int:
    """Prints the answer; returns its exit code."""
    if a.json:
        _print(json.dumps(asdict(answer) | {"interval": answer.interval}))
        return EXIT[answer.verdict]
    what = (
        f"run seed {answer.seed} of {answer.change}" if answer.verdict == "run" else f"{answer.verdict} {answer.change}"
    )
    interval = ""
    if answer.interval is not None:
        interval = f": {answer.mean:+.4g} ({answer.interval[0]:+.4g} to {answer.interval[1]:+.4g})"
    _print(f"{what}: {answer.reason}{interval}")
    if answer.verdict == "keep" and answer.change != BASELINE and a.do is _record:
        again = f"reg-sweep-loop record {a.ledger} --change {BASELINE}"
        _print(f"the baseline is now this change: measure it on fresh seeds, which {again} lists")
    return EXIT[answer.verdict]


def _print(text: str) -> None:
    """Prints a line, which is part of the answer.

    Raises:
        OSError: it can't be printed.
    """
    error = say(text, sys.stdout)
    if error is not None:
        raise error


# ---- arguments


class _Parser(argparse.ArgumentParser):
    """Exits with 3 on a usage error, because 2 means 'run a seed'."""

    def error(self, message: str) -> NoReturn:
        say(f"reg-sweep-loop: {message}: see {self.prog} --help", sys.stderr)
        raise SystemExit(ERROR)


def _checked(a: argparse.Namespace) -> Source:
    if not a.command:
        raise ProgramError(f"a command must follow --, such as -- python train.py --seed {SEED}")
    if not any(SEED in word for word in a.command):
        raise ProgramError(
            f"the command must say where the seed goes, got no {SEED} in it: -- python train.py --seed {SEED}"
        )
    return Source.parse(a.score_from)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="reg-sweep-loop", description="Keep, discard, or one more seed: the judge of a research loop."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, do: Any, says: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=says, description=says)
        sub.add_argument("ledger", type=Path, metavar="LEDGER", help="the loop's file")
        sub.set_defaults(do=do, json=False)
        return sub

    init = command("init", _init, "begin a loop")
    init.add_argument("--score", required=True, metavar="NAME", help="the score's name, such as val_bpb")
    better = init.add_mutually_exclusive_group(required=True)
    better.add_argument("--lower", dest="higher", action="store_false", help="lower scores are better")
    better.add_argument("--higher", dest="higher", action="store_true", help="higher scores are better")
    init.add_argument("--error", type=_number, default=0.05, help="the allowed error (default: 0.05)")
    init.add_argument(
        "--control",
        choices=("fdr", "any"),
        default="fdr",
        help="what --error limits: the share of false keeps (fdr, the default), or the chance of any false keep (any)",
    )
    init.add_argument("--margin", type=_number, help="the largest loss that is acceptable, for --question not_worse")
    init.add_argument(
        "--max-seeds", type=int, default=10, metavar="N", help="the largest number of seeds per candidate (default: 10)"
    )
    init.add_argument("--first-seed", type=int, default=1, metavar="S", help="the first seed (default: 1)")

    baseline = command("baseline", _baseline, "measure the baseline: -- COMMAND with {seed}")
    baseline.add_argument("--skip-failed", action="store_true", help="it may fail on some seeds, which others replace")
    _add_program(baseline)
    attempt = command("try", _try, "run a change on as many seeds as it takes: -- COMMAND with {seed}")
    _add_change(attempt)
    _add_program(attempt)
    record = command("record", _record, "record a run; without --seed, ask for the next one")
    _add_change(record)
    record.add_argument("--seed", type=int, metavar="S")
    record.add_argument("--score", type=_number, metavar="X", help="the score; nan or inf if the run diverged")
    record.add_argument("--failed", metavar="REASON", help="why the run failed")
    record.add_argument("--json", action="store_true", help="print the answer as JSON")
    status = command("status", _status, "show what was kept, and what it cost")
    status.add_argument("--change", metavar="C", help="show only this change")
    status.add_argument("--gain", type=_number, metavar="X", help="show how many seeds it takes to detect a gain of X")
    status.add_argument("--json", action="store_true")
    report = command("report", _report, "write the loop as a page")
    report.add_argument("--out", type=Path, metavar="FILE", help="default: LEDGER.html")
    return parser


def _add_change(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--change", required=True, metavar="C", help="what was changed, in words")
    parser.add_argument(
        "--digest", metavar="D", help="the code's digest, such as a git tree: the same code is not tried twice"
    )
    parser.add_argument(
        "--question", choices=("better", "not_worse"), default="better", help="the claim that a keep must support"
    )


def _add_program(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--score-from",
        default="last",
        metavar="WHERE",
        help="last (the last word of the last line, the default), json:FILE:KEY, or regex:PATTERN",
    )
    parser.add_argument("--timeout", type=_number, metavar="S", help="a run that takes longer counts as failed")
    parser.add_argument("--show", action="store_true", help="show what the program writes to stderr")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


if __name__ == "__main__":
    raise SystemExit(main())
