"""One run in its directory, started, resumed or found finished, and its record.

torch is imported only when there is something to train, not for a refused or finished run.
"""

import logging
import shlex
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reg_sweep.config.digest import digest
from reg_sweep.config.regularizers import penalty_strengths
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NEAR_ZERO, RunConfig, to_dict
from reg_sweep.config.targets import callback_specs
from reg_sweep.runs import files
from reg_sweep.runs.folders import check_log, check_own, record_of_same_run
from reg_sweep.runs.ranking import decimal_text
from reg_sweep.runs.record import (
    CHECKPOINT_FILE,
    METRIC,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    MetricsRow,
    RunRecord,
    TrialFacts,
    check_recordable,
    new_record,
    write_record,
)
from reg_sweep.runs.validation import visible
from reg_sweep.training import provenance, turns
from reg_sweep.training.callbacks import Callbacks
from reg_sweep.training.ranks import Ranks, joined, launched
from reg_sweep.training.turns import Interrupted, stop_on_signals

if TYPE_CHECKING:
    from reg_sweep.training.data import Data
    from reg_sweep.training.fit import Fitted, Prepared

log = logging.getLogger(__name__)


class Trial(Protocol):
    """The trial of a study that a run belongs to."""

    @property
    def chooses(self) -> bool:
        """Whether the study chooses by the objective; some studies only judge arms by it."""

    def facts(self) -> TrialFacts:
        """The trial's entry in the record."""

    def report(self, value: float, step: int) -> None:
        """Reports the objective's value after an epoch."""

    def should_prune(self) -> bool:
        """Whether the run should end now."""


def train(
    run: RunConfig,
    directory: Path,
    save_config: Callable[[], None],
    command: str,
    *,
    trial: Trial | None = None,
    job: int | None = None,
) -> RunRecord:
    """Trains `run` in `directory`, resuming it if it was stopped; returns its record. A finished run is only reported.

    If torchrun has started several processes, all of them train, and only the first reads and writes in `directory`.

    Args:
        run: what to train.
        directory: the directory for the record, the history, the checkpoint and the weights.
        save_config: called once the run is known to be valid and `directory` to belong to it.
        command: the command that reproduces this run, for the record.
        trial: gets each epoch's objective, and may prune the run: its status is then 'pruned'.
        job: the run's number in a sweep. A job's result is one line; only the first job shows the table of layers.

    Raises:
        ConfigError: `directory` holds another run or a sweep, or another process trains there; model, norm and data
            don't fit together; a callback can't be made or started; or the processes have different commands or data.
        DataError, OSError: the data set can't be read; the disk is full or not writable.
        Interrupted: a signal asked to stop.
    """
    config, ranks = to_dict(run), launched()
    check_recordable(config)
    own, is_of_a_grid = digest(config), job is not None and trial is None
    with joined(ranks), ExitStack() as held:
        ranks.check_alike("the command", own)
        before = None
        with ranks.together():
            if ranks.is_first:  # if a grid was started twice, the later one waits instead of failing
                before = held.enter_context(_locked(directory, config, own, wait=is_of_a_grid))
        before = ranks.first_of(before)
        if before is not None and before["status"] in ("complete", "diverged", "pruned"):
            if ranks.is_first:
                _leave_as_it_is(before, directory)
            return before
        with ranks.together():
            callbacks = Callbacks(callback_specs(run.callbacks) if ranks.is_first else {})
        prepared = _prepare(run, own, directory, before, ranks, trial, not job)
        record = _begun(prepared, before, command, trial)
        with ranks.together():
            callbacks.start(record, directory)
        if not ranks.is_first:
            return _follow(prepared, record)
        try:
            check_own(directory, "run")  # a sweep may have started here meanwhile
            save_config()
            with _failure_recorded(record, directory):
                write_record(directory, record)
                fitted = _fit(prepared, directory, record, trial, callbacks, job)
                _finish(record, fitted, prepared.data, directory, keeps_best=run.keeps_best_val)
        finally:
            callbacks.end(record)
        log_summary(record, directory, brief=job is not None, penalized=any(penalty_strengths(config).values()))
        return ranks.first_of(record)


@contextmanager
def _locked(directory: Path, config: dict[str, Any], own: str, *, wait: bool) -> Iterator[RunRecord | None]:
    """Locks `directory`; yields the record of the same run in it, or None."""
    check_own(directory, "run")
    check_log(directory)
    job = turns.current()
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(files.locked_directory(directory, wait=wait and job is None))
                break
            except files.HeldError:
                if job is None or not wait:
                    raise
                job.ask(None)  # the lock's holder may be a job that waits for its turn
                if job.stops:
                    raise Interrupted(job.stops[0]) from None
        yield record_of_same_run(config, own, directory)


def _begun(prepared: "Prepared", before: RunRecord | None, command: str, trial: Trial | None) -> RunRecord:
    """The record of a run that is about to start, or to resume from the record `before`."""
    run = prepared.run
    record = new_record(
        name=run.name,
        config=to_dict(run),
        digest=prepared.digest,
        data=prepared.data.facts(),
        versions=provenance.versions(),
        git_commit=provenance.git_commit(),
        device=provenance.device_facts(prepared.device, run.runtime.threads),
        started=before["started"] if before is not None else provenance.now(),
        command=command,
        trial=None if trial is None else trial.facts(),
    )
    if before is not None:
        record |= {name: before[name] for name in ("epochs_done", "last", "best_val")}  # type: ignore[typeddict-item]
    return record


def _follow(prepared: "Prepared", record: RunRecord) -> RunRecord:
    """Trains in a process other than the first, which keeps the record; returns that record."""
    from reg_sweep.training.fit import fit_prepared

    ranks = prepared.ranks
    with stop_on_signals() as caught:
        fit_prepared(
            prepared, None, on_epoch=lambda row: ranks.first_of(False), stop=lambda: bool(caught), progress=False
        )
    if number := ranks.highest(caught[0] if caught else 0):
        raise Interrupted(number)
    return ranks.first_of(record)


def _leave_as_it_is(record: RunRecord, directory: Path) -> None:
    """Logs that a run is finished, and which of its files are missing; removes a leftover checkpoint."""
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)  # left if a kill came just after the final record
    log.info("%s is %s already: nothing to train", _from_here(directory), record["status"])
    is_tested = record["last"] is not None and record["last"]["test_loss"] is not None
    expected = [WEIGHTS_FILE, *([PREDICTIONS_FILE] if is_tested else [])]
    missing = [name for name in expected if not (directory / name).exists()]
    if missing:
        log.warning(
            "%s lacks its %s: the record is kept; to get the files again, train the run under another name=...",
            directory,
            " and ".join(missing),
        )


# ---- prepare, fit, finish


def _prepare(
    run: RunConfig, own: str, directory: Path, before: RunRecord | None, ranks: Ranks, trial: Trial | None, shown: bool
) -> "Prepared":
    """Prepares the run. Every error in its settings is raised here, before anything is written."""
    from reg_sweep.training.data import load_data
    from reg_sweep.training.fit import prepare
    from reg_sweep.training.model import layer_table

    if ranks.n > 1:
        with ranks.together():
            if ranks.local_rank == 0:  # downloads missing data once per machine
                load_data(run.data)
    with ranks.together():
        prepared = prepare(run, ranks=ranks, own=own)
    data = prepared.data
    ranks.check_alike("the data", data.fingerprint)
    if before is not None and before["data"] and before["data"]["fingerprint"] != data.fingerprint:
        raise ConfigError(
            f"{directory} must be resumed on its own data ({before['data']['source']}, "
            f"{before['data']['fingerprint']}), got {data.source} {data.fingerprint}: choose another name=..."
        )
    log.info(
        "%s: %s train, %s val, %s test images (%s)",
        visible(data.name),
        *(f"{len(split):,}" for split in (data.train, data.val, data.test)),
        visible(data.source),
    )
    if shown:
        log.info("%s", layer_table(prepared.layers))
    for objective in run.objectives:
        if (trial is None or trial.chooses) and objective.startswith("test_"):
            log.warning("objective=%s: the choice is made on test, so its test result is overstated", objective)
    return prepared


def _fit(
    prepared: "Prepared",
    directory: Path,
    record: RunRecord,
    trial: Trial | None,
    callbacks: Callbacks,
    job: int | None,
) -> "Fitted":
    """Trains, and updates the record after each epoch and when a signal stops the run."""
    from reg_sweep.training.channels import with_cost
    from reg_sweep.training.checkpoint import best_after
    from reg_sweep.training.fit import fit_prepared

    run, objectives, best = prepared.run, prepared.run.objectives, record["best_val"]
    # With several objectives, or one that is known only at the end, there is nothing to report or prune by.
    metric = METRIC.get(objectives[0]) if len(objectives) == 1 else None

    def on_epoch(row: MetricsRow) -> bool:
        nonlocal best
        best = best_after(directory, prepared.model, row, best, keeps=run.keeps_best_val)
        record["epochs_done"], record["last"], record["best_val"] = int(row["epoch"]), row, best
        write_record(directory, record)
        callbacks.epoch(row)
        value = None if metric is None else metric.of(row if run.objective_at == "last" else best)
        if trial is None or value is None:
            return ranks.first_of(False)
        trial.report(value, record["epochs_done"])
        return ranks.first_of(trial.should_prune())

    ranks = prepared.ranks
    label = "" if job is None else directory.name  # other runs of the sweep may log at the same time
    with stop_on_signals() as caught:
        fitted = fit_prepared(prepared, directory, on_epoch=on_epoch, stop=lambda: bool(caught), label=label)
    signal_number = ranks.highest(caught[0] if caught else 0)
    record |= {
        "epochs_done": len(fitted.history),
        "last": fitted.history[-1] if fitted.history else None,
        "best_val": _best_val(fitted.history),
        "weights": with_cost(fitted.weights, prepared.run, fitted.model, prepared.data.in_shape, fitted.device),
        "layers": fitted.layers,
        "n_parameters": fitted.n_parameters,
        "seconds": round(sum(row["seconds"] or 0.0 for row in fitted.history), 3),
        "message": fitted.message,
    }
    if signal_number:
        done = _count(record["epochs_done"], "epoch")
        record["message"] = f"stopped by {signal.Signals(signal_number).name} after {done}; it can be resumed"
        write_record(directory, record)
        raise Interrupted(signal_number)
    return fitted


@contextmanager
def _failure_recorded(record: RunRecord, directory: Path) -> Iterator[None]:
    """Records a failure: a study never resumes a failed trial, so without this its record would stay 'running'."""
    try:
        yield
    except Exception as error:
        if record["status"] == "running":
            record |= {"status": "failed", "ended": provenance.now(), "message": _last_line(error)}
            with suppress(OSError):  # a full disk may be what failed
                write_record(directory, record)
        raise


def _finish(record: RunRecord, fitted: "Fitted", data: "Data", directory: Path, *, keeps_best: bool) -> None:
    """Writes the files of a finished run. The status is written last, so that it implies that the others exist."""
    from reg_sweep.runs import arrays
    from reg_sweep.training import checkpoint

    if fitted.test is not None:
        arrays.write_predictions(
            directory,
            predicted=fitted.test.predicted,
            probability=fitted.test.probability,
            label=data.test.labels.numpy(),
            index=data.test_index,
        )
    checkpoint.write_weights(directory, fitted.model)
    checkpoint.check_best_weights(directory, record["best_val"], keeps=keeps_best)
    ended: RunRecord = {**record, "status": fitted.status, "ended": provenance.now()}
    write_record(directory, ended)
    record |= ended
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)


def _best_val(history: list[MetricsRow]) -> MetricsRow | None:
    rows = [row for row in history if row["val_loss"] is not None]
    return min(rows, key=lambda row: row["val_loss"] or 0.0) if rows else None


# ---- the result as text


def log_summary(record: RunRecord, directory: Path, *, brief: bool, penalized: bool) -> None:
    """Logs a run's result: in one line (`brief`), or with a line each for scores, penalty and zeros."""
    directory, last = _from_here(directory), record["last"]
    what = f"{record['status']} after {_count(record['epochs_done'], 'epoch')}, {record['seconds']:.1f} s"
    if last is None:
        log.info("%s: %s\nrecord    %s", what, record["message"], directory)
        return
    scores = _scores(last)
    penalty, train_loss = last["penalty"] or 0.0, last["train_loss"] or 0.0
    share = 0.0 if penalty == 0 else penalty / (penalty + train_loss)
    if brief:
        said = ", ".join(f"{split} {score}" for split, score in scores.items())
        log.info("%s: %s, penalty %s of the loss: %s", what, said, f"{share:.0%}", directory)
        return
    n_images = {"val": record["data"]["n_val"], "test": record["data"]["n_test"]}
    lines = [what, *(f"{split:<9} {score} ({n_images[split]:,} images)" for split, score in scores.items())]
    if penalized:
        lines.append(f"penalty   {penalty:.4f}, {share:.0%} of the training loss")
        if share > 0.5:
            lines.append("          the penalty outweighs the data: smaller strengths may fit better")
    weights = record["weights"]
    if weights is not None:
        lines.append(
            f"weights   {weights['n_zero']:,} of {weights['n']:,} are zero, {weights['n_near_zero']:,} are below "
            f"{NEAR_ZERO:g}; {weights['n_dead_kernels']:,} of {weights['n_kernels']:,} kernels are dead"
        )
    if record["message"]:
        lines.append(f"note      {record['message']}")
    lines += [f"record    {directory}", f"next      python -m reg_sweep.report {shlex.quote(str(directory.parent))}"]
    log.info("\n".join(lines))


def _from_here(directory: Path) -> Path:
    """The path relative to the working directory; unchanged if it lies outside, or that directory is gone."""
    try:
        here = Path.cwd()
    except OSError:
        return directory
    return directory.relative_to(here) if directory.is_relative_to(here) else directory


def _scores(row: MetricsRow) -> dict[str, str]:
    """Texts such as 'accuracy 75.90%, loss 0.8586' for val and test, if there are such images."""
    scores = {}
    for split in ("val", "test"):
        accuracy, loss = METRIC[f"{split}_accuracy"].of(row), METRIC[f"{split}_loss"].of(row)
        if accuracy is not None and loss is not None:
            scores[split] = f"accuracy {accuracy:.2%}, loss {decimal_text(loss)}"
    return scores


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
