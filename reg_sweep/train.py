"""Trains one run or a sweep of runs: reads Hydra's config, writes each run's directory, returns its objective.

python -m reg_sweep.train norm=gbn l1=0.00001 l2=0.0005
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.config.targets import CONF
from reg_sweep.hydra_app import app, errors
from reg_sweep.hydra_app.app import Checks, own_arguments, refuse_if, refuse_several_choices, to_run_config
from reg_sweep.hydra_app.command_line import (
    continuing_arguments,
    overrides_and_flags,
    placed_beside_study,
)
from reg_sweep.hydra_app.errors import public_text
from reg_sweep.hydra_app.internals import (
    VERSION_BASE,
    every_target_allowed,
    full_error_is_asked,
    raised_errors,
    shared_config_store,
)
from reg_sweep.runs.folders import files_of_a_run, new_name
from reg_sweep.runs.reading import find_runs
from reg_sweep.runs.record import METRIC, RunRecord, check_recordable
from reg_sweep.runs.streams import lossy_streams
from reg_sweep.search.compose import hide_storage
from reg_sweep.search.launchers import check_launcher, check_population, launcher_error
from reg_sweep.training.ranks import agreed, launch_command, launched, print_error
from reg_sweep.training.run import Trial, train
from reg_sweep.training.turns import Interrupted

log = logging.getLogger(__name__)

app.register(lambda: agreed("name", new_name), launched().n)


def check_job(cfg: DictConfig) -> None:
    """Refuses a config that can't be trained, before a study begins.

    Raises:
        ConfigError: a key is unknown, a value is out of range, or the objective needs images that the data lacks.
    """
    try:
        _check(cfg)
    except Exception as error:
        raise ConfigError(errors.explain(error)) from None


def _check(cfg: DictConfig) -> None:
    from reg_sweep.images import check_split

    run = to_run_config(cfg)
    check_split(run.data)
    check_recordable(to_dict(run))


class CheckAndReport(Checks):
    """Refuses invalid settings before the first run; writes the report at a multirun's end."""

    def check(self, cfg: DictConfig) -> None:
        """Raises if the run of this config can't be trained."""
        _check(cfg)

    def check_multirun(self, launcher: DictConfig) -> None:
        """Raises if this launcher can't start a multirun here."""
        refuse_if(launched().refuses_multirun)
        check_launcher(launcher)

    def check_jobs(self, launcher: DictConfig, jobs: list[DictConfig]) -> None:
        """Raises if this launcher can't run these jobs."""
        check_population(launcher, jobs)

    def refuse(self, error: Exception) -> int:
        """Prints why the command can't run, and returns the exit code."""
        return _refuse(error)

    def on_run_start(self, config: DictConfig, **rest: Any) -> None:
        """Checks the run that is about to begin, and keeps a storage's password out of Hydra's files."""
        super().on_run_start(config, **rest)
        hide_storage(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the report and logs its verdict.

        Raises:
            SystemExit: the report can't be written; the exit code is 1.
        """
        if not config.report:
            return
        from reg_sweep.report import ReportError, write_report

        root = Path(config.hydra.sweep.dir)
        if not any(True for _ in find_runs(root)):
            return
        try:
            report = write_report([root], root / "report")
        except (ReportError, OSError) as error:  # Hydra would only warn
            again = shlex.join(["python", "-m", "reg_sweep.report", str(root), "--out", f"{root}-report"])
            print_error(
                f"reg_sweep: error: no report was written: {public_text(str(error))}; the runs are kept: retry with"
                f" {again}"
            )
            raise SystemExit(1) from None
        log.info("\n%s\nreport    %s", report.verdict, report.page)


@hydra.main(config_path=str(CONF), config_name="config", **VERSION_BASE)
def _job(cfg: DictConfig) -> float | list[float]:
    config = HydraConfig.get()
    refuse_several_choices(config.overrides.task)
    run, trial = to_run_config(cfg), _current_trial()
    if trial is not None and trial.chooses and any(name.startswith("test_") for name in run.objectives):
        run.test_epochs = "every"  # each epoch's value is reported to the pruner
    directory = Path(config.runtime.output_dir)

    def save_config() -> None:
        folder = directory / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": config}), folder / "hydra.yaml")
        OmegaConf.save(config.overrides.task, folder / "overrides.yaml")

    command = shlex.join([*launch_command(), *own_arguments(cfg, config)])
    try:
        job = config.job.num if config.mode is RunMode.MULTIRUN else None
        record = train(run, directory, save_config, command, trial=trial, job=job)
    except (ConfigError, DataError) as error:
        if config.mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(_refuse(error)) from None  # Hydra would print a line of its own before an exception
    except OSError as error:
        if config.mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(_log_disk_failure(error)) from None
    if job is None and record["status"] == "diverged":
        raise SystemExit(1)  # in a sweep, it is one result among others
    return _objective(run, record)


# ---- for the sweeper


def _objective(run: RunConfig, record: RunRecord) -> float | list[float]:
    """The objective's values at the epoch that `objective_at` names; the worst possible values if the run diverged.

    Raises:
        optuna.TrialPruned: the run's trial was pruned.
    """
    if record["status"] == "pruned":
        from reg_sweep.search import pruned_error

        raise pruned_error(record["message"] or "")
    at: Any = run.objective_at
    values = [objective_value(name, record, at) for name in run.objectives]
    return values[0] if isinstance(run.objective, str) else values


def objective_value(name: str, record: RunRecord, at: Literal["last", "best_val"] = "last") -> float:
    """The named objective at the run's last epoch, or its best on val; the worst possible value if it diverged."""
    if record["status"] == "diverged":
        higher_is_better = name == "zero_share" or (name in METRIC and METRIC[name].higher_is_better)
        return float("-inf") if higher_is_better else float("inf")
    if name in METRIC:
        value = METRIC[name].of(record[at])
    else:
        counts = record["weights"] or {"n": 1, "n_zero": 0, "multiply_adds": 0}
        value = float(counts["multiply_adds"]) if name == "multiply_adds" else counts["n_zero"] / counts["n"]
    assert value is not None  # a completed run has every objective
    return value


def write_compact(directories: Sequence[Path]) -> str:
    """Writes the compact networks of an arm that a study confirmed; returns their size and speed as text."""
    from reg_sweep.compact.writing import compact_arm

    return compact_arm(directories)


def _current_trial() -> Trial | None:
    if "REG_SWEEP_TRIAL" not in os.environ:  # don't import Optuna outside a study
        return None
    from reg_sweep.search import current_trial

    trial: Trial | None = current_trial()
    return trial


# ---- the command line


def _refuse(error: BaseException) -> int:
    said = errors.explain(error, overrides_and_flags(sys.argv[1:])[0])
    print_error(f"reg_sweep: error: {public_text(said)}")
    return 2


def _log_disk_failure(error: OSError) -> int:
    folder = Checks.folder
    if folder is not None and not Checks.begun and not _is_begun(folder):  # nothing to continue
        refused = errors.unwritable(error, "run", folder)
        if refused is not None:
            print_error(f"reg_sweep: error: {public_text(refused)}")
            return 2
    command = _continue_command()
    print_error(f"reg_sweep: error: {error}; finished work is kept: fix this, then continue with {command}")
    return 1


def _is_begun(folder: Path) -> bool:
    try:
        return bool(files_of_a_run(folder))
    except OSError:  # the folder may not be readable
        return False


def _continue_command() -> str:
    """The command line as typed, with the overrides that find its directory again."""
    return shlex.join([*launch_command(), *continuing_arguments(Checks.place)])


def main() -> None:
    """Runs the command line. Errors in the config end with one line and exit code 2, other errors with a traceback."""
    asks_for_help = not {"--help", "-h", "--hydra-help"}.isdisjoint(sys.argv[1:])
    with lossy_streams(), every_target_allowed(), shared_config_store() if asks_for_help else nullcontext():
        sys.argv[1:] = placed_beside_study(*overrides_and_flags(sys.argv[1:]))
        app.begin_command()
        try:
            if full_error_is_asked():
                _job()
            else:
                _explained_job()
        finally:
            app.end_command()


def _explained_job() -> None:
    """Runs the command; an error in its settings, or a full disk, ends it with one line."""
    logging.raiseExceptions = False  # otherwise a full disk prints a traceback for each log line before our own error
    try:
        app.refuse_typed(sys.argv[1:])
        with raised_errors():
            _job()
    except (Interrupted, KeyboardInterrupt) as stopped:
        print_error(f"stopped; continue with\n  {_continue_command()}")
        raise SystemExit(stopped.exit_code if isinstance(stopped, Interrupted) else 130) from None
    except (ConfigError, DataError, HydraException, OmegaConfBaseException) as error:
        raise SystemExit(_refuse(error)) from None
    except OSError as error:
        raise SystemExit(_log_disk_failure(error)) from None
    except Exception as error:
        launchers = launcher_error(error)
        if Checks.is_composed and launchers is None:
            raise
        raise SystemExit(_refuse(launchers or error)) from None
    finally:
        logging.raiseExceptions = True


if __name__ == "__main__":
    from reg_sweep import train as imported

    imported.main()  # not this copy's main: Hydra's callback sets the state of the imported module
