"""Runs behind an address: MLflow's tracking servers, and Optuna's storages of any kind."""

import math
import os
from collections.abc import Sequence
from pathlib import Path, PosixPath
from typing import Any

from reg_sweep.readers.foreign import ForeignRun, ReadError, flat_settings, number, plain, status_of, text
from reg_sweep.readers.stores import (
    MAX_RUNS,
    add_attribute,
    is_search,
    logged_series,
    objective_name,
    require_few,
    sequential,
    trial_status,
    typed,
    with_seeds,
)
from reg_sweep.runs.addresses import public_location, reason_of
from reg_sweep.runs.validation import ValidationError, one_line, open_regular

# The default drivers of addresses that name none, and the packages whose driver has another name.
_DRIVERS = {"mysql": "mysqlclient", "mariadb": "mysqlclient", "oracle": "oracledb", "mssql": "pyodbc"}
_PACKAGES = {"psycopg": "'reg_sweep[postgres]'", "mysqldb": "mysqlclient", "psycopg2": "psycopg2-binary"}
_SERVERS = ("http", "https", "databricks")


class Address(PosixPath):
    """A server's address in place of a run's path; both slashes of `//` are printed."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)


def address_runs(address: str) -> tuple[str, list[ForeignRun]]:
    """The runs of an MLflow server (http...), or of an Optuna storage (any other address).

    Raises:
        ReadError: the program that reads it is not installed, or the address does not answer.
    """
    place = address_place(address)
    if address.partition(":")[0] in _SERVERS:
        return "MLflow's server", _mlflow(address, place)
    return "Optuna's storage", _optuna(address, place)


def address_place(address: str) -> Address:
    """The place of an address's runs, without its user, password and options."""
    return Address(public_location(address))


def _mlflow(address: str, place: Address) -> list[ForeignRun]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # contact no server but the one that was named
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ReadError(f"{place}: an MLflow server needs mlflow-skinny: pip install 'reg_sweep[mlflow]'") from None
    for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "30")):  # by default a wrong address is tried for minutes
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    try:
        client = MlflowClient(tracking_uri=address)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        found: list[Any] = []
        token = None
        while ids and len(found) <= MAX_RUNS:
            page = client.search_runs(ids, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        require_few(len(found), place)
        return [_mlflow_run(client, run, place) for run in found]
    except ReadError:
        raise
    except Exception as error:  # any error of the client or the server
        said = reason_of(address, error)
        remedy = "start it, or download a table and name its file"
        raise ReadError(f"{place}: must be an MLflow server that answers, got {said}: {remedy}") from None


def _mlflow_run(client: Any, run: Any, place: Address) -> ForeignRun:
    info, data = run.info, run.data
    history = {}
    for name in list(data.metrics)[:100]:
        points = client.get_metric_history(info.run_id, name)
        history[text(name)] = logged_series([(float(p.step), float(p.value)) for p in points])
    settings = {text(name): typed(str(value)) for name, value in data.params.items()}
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time and info.start_time else math.nan
    return ForeignRun(
        "MLflow",
        place,
        settings | {"run_name": plain(info.run_name)},
        history=history,
        status=status_of(str(info.status)),
        seconds=seconds,
        place=f"run {text(info.run_id)[:12]}",
    )


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of Optuna's."""
    try:
        with open_regular(path) as file:
            return file.read(60).lstrip().startswith(b'{"op_code"')
    except (OSError, ValidationError):
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
    except ReadError:
        raise
    except Exception as error:  # any error of Optuna for a damaged journal
        raise ReadError(f"{path}: must be an undamaged Optuna journal ({one_line(error)})") from None


def _optuna(address: str, place: Address) -> list[ForeignRun]:
    from optuna.storages import RDBStorage

    scheme = address.partition("://")[0]
    if scheme.startswith("redis"):
        raise ReadError(
            f"{place}: a Redis journal holds pickled snapshots, which are never loaded: copy the study into a database "
            "with optuna.copy_study"
        )
    try:
        storage = RDBStorage(address, skip_table_creation=True)
        try:
            return _trials(storage, place)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except ImportError:
        driver = scheme.partition("+")[2] or _DRIVERS.get(scheme, scheme)
        package = _PACKAGES.get(driver, driver)
        raise ReadError(f"{place}: needs the driver of its database: pip install {package}") from None
    except ReadError:
        raise
    except Exception as error:  # any error of the database
        said = reason_of(address, error)
        said = "it has none of Optuna's tables" if "version_info" in said else said
        raise ReadError(f"{place}: must be an Optuna storage that answers ({said})") from None


def _trials(storage: Any, path: Path) -> list[ForeignRun]:
    from optuna import load_study

    names: Sequence[str] = [study.study_name for study in storage.get_all_studies()]
    runs = []
    for name in names:
        study = load_study(study_name=name, storage=storage)
        directions = {n: direction.name for n, direction in enumerate(study.directions)}
        called, explored = study.metric_names or (), is_search(study.user_attrs)
        bought_by = sequential(study.user_attrs, text(name))
        for trial in study.get_trials(deepcopy=False):
            named = {"study": text(name)} if len(names) > 1 else {}
            run = ForeignRun("Optuna", path, named | flat_settings(trial.params), place=f"trial {trial.number}")
            run.status, run.is_trial, run.bought_by = trial_status(trial.state.name), explored, bought_by
            for n, value in enumerate(trial.values or ()):
                score = number(value)
                run.scores[objective_name(n, directions, called)] = math.nan if score is None else score
            for key, value in trial.user_attrs.items():
                add_attribute(run, text(key), value)
            runs.append(run)
        require_few(len(runs), path)
    return with_seeds(runs)
