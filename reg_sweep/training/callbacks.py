"""Callbacks: the base class, and the callbacks that a config names."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reg_sweep.config.rules import own_code
from reg_sweep.config.schema import ConfigError, locate
from reg_sweep.runs.record import MetricsRow, RunRecord

log = logging.getLogger(__name__)


class Callback:
    """Base class of callbacks: its methods are called as a run goes on, and change nothing in it.

    Every epoch is reported once, however often the run is stopped and continued.
    """

    def on_start(self, record: RunRecord, directory: Path) -> None:
        """Before the first epoch, or the next one of a run that goes on (`record["epochs_done"]` are told already).

        An exception ends the run before it begins, in one line. `directory` is the run's own.
        """

    def on_epoch(self, row: MetricsRow) -> None:
        """After each epoch, with its row of metrics.csv; `row["epoch"]` counts from 1."""

    def on_end(self, record: RunRecord) -> None:
        """When this process is done with the run, be it finished, failed or (status 'running') stopped."""


class Callbacks:
    """The callbacks of one run, called together.

    One that raises once the run is under way is named in a warning and not called any more; the run goes on.

    Raises:
        ConfigError: one can't be imported or made, or is no `Callback`.
    """

    def __init__(self, specs: dict[str, Any]) -> None:
        self._told = {name: _make(name, spec) for name, spec in specs.items()}
        self._epochs_told = 0

    def start(self, record: RunRecord, directory: Path) -> None:
        """Reports that the run begins, or resumes after the epochs that the record has.

        Raises:
            ConfigError: a callback raised. `on_end` of those that had begun was called.
        """
        self._epochs_told = record["epochs_done"]
        made, self._told = self._told, {}
        for name, callback in made.items():
            try:
                callback.on_start(record, directory)
            except (Exception, SystemExit) as error:  # no tracker may end a run
                self.end(record)
                raise ConfigError(
                    f"callbacks.{name} must be able to start, got {_said(error)}: fix it, or leave it out"
                ) from None
            self._told[name] = callback

    def epoch(self, row: MetricsRow) -> None:
        """Reports an epoch, unless it was reported before the run was stopped."""
        if row["epoch"] > self._epochs_told:
            self._tell(lambda callback: callback.on_epoch(row))

    def end(self, record: RunRecord) -> None:
        """Reports that this process is done with the run."""
        self._tell(lambda callback: callback.on_end(record))

    def _tell(self, tell: Callable[[Callback], None]) -> None:
        for name, callback in list(self._told.items()):
            try:
                tell(callback)
            except (Exception, SystemExit) as error:  # no tracker may end a run
                del self._told[name]
                log.warning("callbacks.%s is not called any more, the run goes on without it: %s", name, _said(error))


def _make(name: str, spec: dict[str, Any]) -> Callback:
    make = locate(f"callbacks.{name}", spec)
    try:
        with own_code(f"callbacks.{name}", "take the arguments of its config", spec["_target_"]):
            callback = make(**{k: v for k, v in spec.items() if k != "_target_"})
    except ConfigError as error:
        said = str(error)
        raise ConfigError(said if said.startswith("callbacks.") else f"callbacks.{name}: {said}") from None
    if not isinstance(callback, Callback):
        raise ConfigError(
            f"callbacks.{name} must be a reg_sweep.Callback, got {type(callback).__name__} from {spec['_target_']!r}"
        )
    return callback


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
