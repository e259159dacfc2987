"""How a study stands, while it runs, in the terminal of the process that sweeps."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from reg_sweep.runs.study import Direction
from reg_sweep.search.text import Standing, outcome_text, params_text

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


class Progress:
    """A line for every trial that ends, and, on a terminal, one that tells how the study stands, within its block."""

    def __init__(self, total: int, directions: list[Direction], finished: set[int], stream: TextIO) -> None:
        """Counts to `total`; `finished` are the numbers of trials that need no line any more.

        Without directions no trial is called the best.
        """
        self._total, self._stream = total, stream
        self._earlier, self._seen = finished, set[int]()
        self._start_s = time.monotonic()
        self._standing = Standing(directions)

    def __enter__(self) -> "Progress":
        """Nothing is shown before the first update."""
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the line about what is running away."""
        self._clear()

    def update(self, trials: Sequence["FrozenTrial"]) -> None:
        """Prints the trials that have ended since the last call, and shows what is running."""
        self._total = max(self._total, len(trials))  # a study until a verdict asks for more as it goes
        # All of the study's trials, not only this process's: workers, and other machines, tell the storage alone.
        new = [t for t in trials if t.number not in self._seen and t.state.is_finished()]
        for trial in sorted(new, key=lambda t: t.number not in self._earlier):
            self._seen.add(trial.number)
            self._standing.add(trial)
            if trial.number not in self._earlier:
                self._clear()
                log.info(
                    "trial %d: %s: %s | %d of %d%s%s",
                    *(trial.number, params_text(trial.params), outcome_text(trial)),
                    *(len(self._seen), self._total, self._standing, self._left()),
                )
        running = [t for t in trials if t.state.name == "RUNNING"]
        if running:
            self.show("; ".join(map(_doing, running)))

    def show(self, doing: str) -> None:
        """Replaces the line about what is running."""
        if self._stream.isatty():
            self._clear()
            # The cursor goes back to the line's begin: whatever is logged next replaces it.
            self._stream.write(f"{doing} | {len(self._seen)} of {self._total}{self._standing}{self._left()}\r")
            self._stream.flush()

    def _clear(self) -> None:
        if self._stream.isatty():
            self._stream.write("\x1b[K")

    def _left(self) -> str:
        # This start's trials alone: those of an earlier one may have run on another machine.
        done = len(self._seen) - len(self._earlier)
        if done == 0 or len(self._seen) >= self._total:
            return ""
        seconds = (time.monotonic() - self._start_s) / done * (self._total - len(self._seen))
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def _doing(trial: "FrozenTrial") -> str:
    step = trial.last_step
    last = "" if step is None else f", {trial.intermediate_values[step]:.6g} at step {step}"
    return f"trial {trial.number}: {params_text(trial.params)}{last}"
