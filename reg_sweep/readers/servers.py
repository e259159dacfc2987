"""Runs behind an address: MLflow's tracking servers, and Optuna's storages of any kind."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reg_sweep.readers.run import ForeignRun, ReadError, Series, flat_settings, number, plain, status_of, text
from reg_sweep.readers.stores import add_attribute, is_search, objective_name, trial_status, typed, with_seeds
from reg_sweep.runs.validation import one_line

MAX_RUNS = 10_000
_SERVERS = ("http", "https", "databricks")


def address_runs(address: str) -> tuple[str, list[ForeignRun]]:
    """The runs of an MLflow server (http...), or of an Optuna storage (any other address).

    Raises:
        ReadError: the program that reads it is not installed, or the address does not answer.
    """
    scheme = address.partition(":")[0]
    return ("MLflow's server", _mlflow(address)) if scheme in _SERVERS else ("Optuna's storage", _optuna(address))


def _mlflow(address: str) -> list[ForeignRun]:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ReadError(f"{address}: an MLflow server needs mlflow-skinny: pip install 'reg_sweep[mlflow]'") from None
    for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "30")):  # by default a wrong address is tried for minutes
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    try:
        client = MlflowClient(tracking_uri=address)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        found: list[Any] = []
        token = None
        while ids and len(found) < MAX_RUNS:
            page = client.search_runs(ids, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        return [_mlflow_run(client, run, address) for run in found]
    except Exception as error:  # whatever the client and the server say
        raise ReadError(f"{address}: must be an MLflow server that answers ({one_line(error)})") from None


def _mlflow_run(client: Any, run: Any, address: str) -> ForeignRun:
    info, data = run.info, run.data
    history = {}
    for name in list(data.metrics)[:100]:
        points = client.get_metric_history(info.run_id, name)
        history[text(name)] = Series.of([float(p.step) for p in points], [float(p.value) for p in points])
    settings = {text(name): typed(str(value)) for name, value in data.params.items()}
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time and info.start_time else math.nan
    return ForeignRun(
        "MLflow",
        Path(address),
        settings | {"run_name": plain(info.run_name)},
        history=history,
        status=status_of(str(info.status)),
        seconds=seconds,
        place=f"run {text(info.run_id)[:12]}",
    )


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of Optuna's."""
    try:
        with path.open("rb") as file:
            return file.read(60).lstrip().startswith(b'{"op_code"')
    except OSError:
        return False


def journal_runs(path: Path) -> list[ForeignRun]:
    """The trials of all studies in a journal file.

    Raises:
        ReadError: it can't be read.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return _trials(JournalStorage(JournalFileBackend(str(path))), path)
    except Exception as error:  # whatever Optuna says of a damaged journal
        raise ReadError(f"{path}: must be a whole journal of Optuna ({one_line(error)})") from None


def _optuna(address: str) -> list[ForeignRun]:
    from optuna.storages import RDBStorage

    if address.startswith("redis"):
        raise ReadError(
            f"{address}: a Redis journal holds pickled snapshots, which are never loaded: copy the study first"
        )
    try:
        return _trials(RDBStorage(address, skip_table_creation=True), Path(address))
    except ImportError as error:
        raise ReadError(
            f"{address}: {one_line(error)}: pip install 'reg_sweep[postgres]', or the driver it names"
        ) from None
    except Exception as error:  # whatever the database says
        raise ReadError(f"{address}: must be an Optuna storage that answers ({one_line(error)})") from None


def _trials(storage: Any, path: Path) -> list[ForeignRun]:
    from optuna import load_study

    names: Sequence[str] = [study.study_name for study in storage.get_all_studies()]
    runs = []
    for name in names:
        study = load_study(study_name=name, storage=storage)
        directions = {n: direction.name for n, direction in enumerate(study.directions)}
        called, explored = study.metric_names or (), is_search(study.user_attrs)
        for trial in study.get_trials(deepcopy=False)[:MAX_RUNS]:
            named = {"study": text(name)} if len(names) > 1 else {}
            run = ForeignRun("Optuna", path, named | flat_settings(trial.params), place=f"trial {trial.number}")
            run.status, run.is_trial = trial_status(trial.state.name), explored
            for n, value in enumerate(trial.values or ()):
                score = number(value)
                run.scores[objective_name(n, directions, called)] = math.nan if score is None else score
            for key, value in trial.user_attrs.items():
                add_attribute(run, text(key), value)
            runs.append(run)
    return with_seeds(runs)
