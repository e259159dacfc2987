"""Callbacks: the base class, the callbacks that a config names, and three for trackers.

A tracker gets the settings, each epoch's metrics, and the record at the end. Each tracker needs its own package, which
is installed as an extra. No tracker needs a network unless it is given a server.
"""

import hashlib
import importlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.targets import locate, own_code
from reg_sweep.runs.record import METRICS, MetricsRow, RunRecord

log = logging.getLogger(__name__)

# Not run.json: a copy with that name would be found as a run of its own.
RECORD_FILE = "record.json"


class Callback:
    """Base class of callbacks. Its methods are called during a run, and don't change it.

    Every epoch is reported once, however often the run is stopped and resumed.
    """

    def on_start(self, record: RunRecord, directory: Path) -> None:
        """Called before the first epoch, or before the next one of a resumed run.

        A resumed run has already reported `record["epochs_done"]` epochs. `directory` is the run's own. An exception
        stops the run before it begins, with a one-line error.
        """

    def on_epoch(self, row: MetricsRow) -> None:
        """Called after each epoch, with its row of metrics.csv; `row["epoch"]` counts from 1."""

    def on_end(self, record: RunRecord) -> None:
        """Called when this process is done with the run: it finished, failed, or was stopped (status 'running')."""


class Callbacks:
    """The callbacks of one run, called together.

    If a callback raises during the run, a warning names it and it is no longer called; the run continues.

    Raises:
        ConfigError: a callback can't be imported or made, or is not a `Callback`.
    """

    def __init__(self, specs: dict[str, Any]) -> None:
        self._active = {name: _make(name, spec) for name, spec in specs.items()}
        self._epochs_reported = 0

    def start(self, record: RunRecord, directory: Path) -> None:
        """Reports that the run begins, or resumes after the epochs in its record.

        Raises:
            ConfigError: a callback raised. `on_end` was called for the callbacks that had started.
        """
        self._epochs_reported = record["epochs_done"]
        made, self._active = self._active, {}
        for name, callback in made.items():
            try:
                callback.on_start(record, directory)
            except (Exception, SystemExit) as error:  # no tracker may end a run
                self.end(record)
                raise ConfigError(
                    f"callbacks.{name} must be able to start, got {_said(error)}: fix it, or leave it out"
                ) from None
            self._active[name] = callback

    def epoch(self, row: MetricsRow) -> None:
        """Reports an epoch, unless it was reported before the run was stopped."""
        if row["epoch"] > self._epochs_reported:
            self._call(lambda callback: callback.on_epoch(row))

    def end(self, record: RunRecord) -> None:
        """Reports that this process is done with the run."""
        self._call(lambda callback: callback.on_end(record))

    def _call(self, method: Callable[[Callback], None]) -> None:
        for name, callback in list(self._active.items()):
            try:
                method(callback)
            except (Exception, SystemExit) as error:  # no tracker may end a run
                del self._active[name]
                log.warning("callbacks.%s is no longer called, the run continues without it: %s", name, _said(error))


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


def settings(record: RunRecord) -> dict[str, Any]:
    """A run's config as a flat dict with dotted keys, without callbacks and unset keys; lists become text."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                visit(f"{prefix}{k}.", v)
        elif value is not None:
            flat[prefix[:-1]] = json.dumps(value) if isinstance(value, list) else value

    visit("", {k: v for k, v in record["config"].items() if k != "callbacks"})
    return flat


def measures(row: MetricsRow) -> dict[str, float]:
    """An epoch's measurements, by the columns of metrics.csv."""
    values = cast(dict[str, float | None], row)
    return {name: value for name, value in values.items() if name != "epoch" and value is not None}


def identity(record: RunRecord, directory: Path) -> str:
    """16 hexadecimal digits by which a tracker recognizes a resumed run."""
    text = f"{record['digest']} {record['started']} {directory.name}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'reg_sweep[{extra}]'") from None


class TensorBoard(Callback):
    """Writes TensorBoard events into the run's directory; `tensorboard --logdir outputs` shows all runs.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        self._tensorboard = _need("torch.utils.tensorboard", "tensorboard")
        self._hparams = _need("torch.utils.tensorboard.summary", "tensorboard").hparams
        self._writer: Any = None

    def on_start(self, record: RunRecord, directory: Path) -> None:
        """Opens the event file, and writes the settings for TensorBoard's HPARAMS tab."""
        self._writer = self._tensorboard.SummaryWriter(str(directory / "tensorboard"))
        experiment, start, self._end = self._hparams(settings(record), dict.fromkeys(METRICS, 0.0))
        if record["epochs_done"] == 0:
            self._writer.file_writer.add_summary(experiment)
            self._writer.file_writer.add_summary(start)

    def on_epoch(self, row: MetricsRow) -> None:
        """Adds the epoch's measures, and flushes them so that a kill loses none."""
        for name, value in measures(row).items():
            self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def on_end(self, record: RunRecord) -> None:
        """Adds the record as text."""
        text = json.dumps(record, indent=1)
        self._writer.add_text("record", f"```json\n{text}\n```", record["epochs_done"])
        self._writer.file_writer.add_summary(self._end)
        self._writer.close()


_MLFLOW_STATUS = {"failed": "FAILED", "running": "KILLED"}  # by the record's status; all others are FINISHED


class Mlflow(Callback):
    """Logs to an MLflow experiment; a resumed run continues its own MLflow run.

    `tracking_uri` is MLflow's: a server, or a place for its files. By default it is `$MLFLOW_TRACKING_URI`, or else
    MLflow's own default.

    Raises:
        ConfigError: mlflow is not installed.
    """

    def __init__(self, experiment: str = "reg_sweep", tracking_uri: str | None = None) -> None:
        self._mlflow = _need("mlflow", "mlflow")
        self._experiment, self._tracking_uri = experiment, tracking_uri
        self._client: Any = None
        self._run_id = ""

    def on_start(self, record: RunRecord, directory: Path) -> None:
        """Creates the MLflow run, with the settings as its parameters, or finds the one to resume."""
        self._client = self._mlflow.MlflowClient(self._tracking_uri)
        experiment, tag = self._experiment_id(), identity(record, directory)
        begun = self._client.search_runs([experiment], f"tags.reg_sweep = '{tag}'", max_results=1)
        if begun:
            self._run_id = begun[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        run = self._client.create_run(experiment, run_name=str(directory), tags={"reg_sweep": tag})
        self._run_id = run.info.run_id
        entities = self._mlflow.entities
        self._client.log_batch(self._run_id, params=[entities.Param(k, str(v)) for k, v in settings(record).items()])

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except self._mlflow.exceptions.MlflowException:  # another process was faster
                found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id)

    def on_epoch(self, row: MetricsRow) -> None:
        """Logs the epoch's measures in one batch."""
        now, metric = int(time.time() * 1000), self._mlflow.entities.Metric
        measured = [metric(k, v, now, int(row["epoch"])) for k, v in measures(row).items()]
        self._client.log_batch(self._run_id, metrics=measured)

    def on_end(self, record: RunRecord) -> None:
        """Logs the record as an artifact, and its status."""
        self._client.log_dict(self._run_id, record, RECORD_FILE)
        self._client.set_tag(self._run_id, "status", record["status"])
        self._client.set_terminated(self._run_id, _MLFLOW_STATUS.get(record["status"], "FINISHED"))


class Wandb(Callback):
    """Logs to a Weights & Biases project; `mode` is offline (`wandb sync` uploads it later) or online.

    A run that is resumed offline gets another folder with the same id: `wandb sync --append` joins them.

    Raises:
        ConfigError: wandb is not installed.
    """

    def __init__(self, project: str = "reg_sweep", mode: str = "offline") -> None:
        self._wandb = _need("wandb", "wandb")
        self._project, self._mode = project, mode
        self._run: Any = None

    def on_start(self, record: RunRecord, directory: Path) -> None:
        """Starts or resumes the W&B run."""
        self._run = self._wandb.init(
            project=self._project,
            name=str(directory),
            id=identity(record, directory),
            resume=None if self._mode == "offline" else "allow",
            config=settings(record),
            mode=self._mode,
            reinit="create_new",
            # Don't upload the command line: it may hold a storage URL with a password.
            settings=self._wandb.Settings(console="off", quiet=True, x_disable_meta=True),
        )

    def on_epoch(self, row: MetricsRow) -> None:
        """Logs the epoch's measures."""
        self._run.log(measures(row), step=int(row["epoch"]))

    def on_end(self, record: RunRecord) -> None:
        """Logs the record as an artifact, and its status."""
        artifact = self._wandb.Artifact(f"record-{self._run.id}", type="record")
        with artifact.new_file(RECORD_FILE) as file:
            json.dump(record, file, indent=1)
        self._run.log_artifact(artifact)
        self._run.summary["status"] = record["status"]
        self._run.finish(exit_code=int(record["status"] == "failed"))
