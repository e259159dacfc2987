"""The command: python -m reg_sweep.compact outputs/RUN."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from reg_sweep.compact.writing import compact_run
from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.runs.record import RecordError
from reg_sweep.runs.streams import open_closed_streams, say
from reg_sweep.runs.validation import visible


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the compact network of each run, and prints what was removed and how fast it is.

    Returns the exit code: 0, 2 if some run has no compact network, or 130 after Ctrl-C.
    """
    open_closed_streams()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = _parser().parse_args(argv)
    code = 0
    for run in arguments.runs:
        try:
            done = compact_run(Path(run), onnx=arguments.onnx, seconds=arguments.seconds, again=arguments.again)
            if (lost := say(done, sys.stdout)) is not None:
                raise lost
        except (ConfigError, DataError, RecordError, OSError) as error:
            say(f"reg_sweep.compact: {error}", sys.stderr)
            code = 2
        except KeyboardInterrupt:
            say("reg_sweep.compact: stopped; nothing was written for this run", sys.stderr)
            return 130
    return code


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ").replace(": must", " must", 1)
        say(f"reg_sweep.compact: {visible(said)} (--help lists the options)", sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m reg_sweep.compact",
        description="Removes the zero channels of a run's network, checks that it computes the same on the test images "
        "and writes RUN/compact/: weights, a torch.export program, and a record with sizes and latencies.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a finished run, such as outputs/RUN")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (needs onnx, onnxscript)")
    parser.add_argument(
        "--seconds",
        type=_duration,
        default=2.0,
        help="seconds to measure each latency for; 0: as short as possible, 5 turns (default: 2)",
    )
    parser.add_argument("--again", action="store_true", help="replace an existing compact network")
    return parser


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text!r}") from None
    if not 0 <= seconds < 3600:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 3600, got {text}")
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
