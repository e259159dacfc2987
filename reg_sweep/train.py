"""Trains one run, or a sweep of them: Hydra's config in, a run's directory and its objective out.

python -m reg_sweep.train norm=gbn l1=0.00001 l2=0.0005
"""

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from reg_sweep import errors, records, refusals
from reg_sweep.config import ConfigError, DataError, RunConfig, digest, to_dict
from reg_sweep.folders import job_folder, new_name
from reg_sweep.hydra_internals import (
    VERSION_BASE,
    compose_commands_once,
    full_error_is_asked,
    grid_jobs,
    is_basic_sweeper,
    job_config,
    raised_errors,
    register_resolver,
    share_config_store,
    share_job_configs,
)
from reg_sweep.objective import objective_value
from reg_sweep.overrides import flagged_folders, missing_overrides, search_path, search_path_override
from reg_sweep.records import RunRecord
from reg_sweep.search.command import continuing_arguments, overrides_and_flags, place_overrides, placed_beside_study
from reg_sweep.search.launchers import broken, check_launcher
from reg_sweep.search.settings import Settings
from reg_sweep.secrecy import public_text
from reg_sweep.training.ranks import agreed, launch_command, launched, tell
from reg_sweep.training.run import Interrupted, Trial, train

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
# Inside the package when installed, beside it in a checkout.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def _schema() -> DictConfig:
    """RunConfig's types and defaults, without those that belong to one choice of a group: the group's file has them."""
    schema: DictConfig = OmegaConf.structured(RunConfig)
    schema.model, schema.data.source = {}, {}
    # One that is null takes no mapping; here whatever its callable takes is a key.
    for group in (schema.optimizer, schema.schedule):
        group.source = {}
        OmegaConf.set_struct(group.source, False)
    schema.optimizer.momentum, schema.optimizer.nesterov = None, None
    schema.runtime.ranks = launched().n
    return schema


def _job_folder(_root_: DictConfig) -> str:
    """The folder of a sweep's job: its number, which is a trial's too; that of a grid's job goes by what it is."""
    number = _root_.hydra.job.num
    if not is_basic_sweeper(_root_.hydra.sweeper):
        return str(number)
    config = _config_of(job_config(_root_))
    return str(number) if config is None else job_folder(Path(_root_.hydra.sweep.dir), number, config)


def _content_name(_root_: DictConfig) -> str:
    """A name that the same settings have at every start, and no others: a job that a cluster starts again goes on."""
    cfg = job_config(_root_)
    with read_write(cfg), open_dict(cfg):
        cfg.name = "run"  # what is asked for may be its name
    config = _config_of(cfg)
    return "refused" if config is None else f"run_{digest(config)}"


def _config_of(cfg: DictConfig) -> dict[str, Any] | None:
    """A run's config while it is being composed; None of one that the run will refuse, in words."""
    try:
        return to_dict(to_run_config(cfg))
    except (ConfigError, OmegaConfBaseException):
        return None


share_config_store()
compose_commands_once()
ConfigStore.instance().store(name="schema", node=_schema())
# Hydra imports this module for its callback once more where it is run as __main__: hence replace.
register_resolver("reg_sweep.new_name", lambda: agreed("name", new_name), use_cache=True, replace=True)
register_resolver("reg_sweep.job_folder", _job_folder, replace=True)
register_resolver("reg_sweep.content_name", _content_name, replace=True)

_SWITCHES = {"report", "data.offline_sample", "optimizer.nesterov"}
_SWEEPER_SETTINGS = frozenset(field.name for field in fields(Settings))
_GROUPS_OF_ONE = {"data", "model", "norm", "penalty", "optimizer", "schedule", "runtime", "study"}
_SWEEPS_OWN = ("name", "report", "study", "cluster")  # what a job of its own does not get from its sweep
_missing: dict[str, list[str]] = {}  # what the commands of this sweep's trials lack, as composing tells
_MAX_CHECKED = 500  # jobs of a grid; the rest are refused when their turn comes


# ---- under Hydra


def to_run_config(cfg: DictConfig) -> RunConfig:
    """Hydra's composed config as a RunConfig.

    Raises:
        ConfigError: a key is unknown, or a value is out of its range.
    """
    _refuse_other_keys(cfg)
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    return run


def check_job(cfg: DictConfig) -> None:
    """Refuses a config that can't be trained, before a study begins.

    Raises:
        ConfigError: a key is unknown, a value is out of its range, or the objective needs what the data lack.
    """
    try:
        _check(cfg)
    except Exception as error:
        raise ConfigError(errors.explain(error, _SWEEPER_SETTINGS)) from None


def _check(cfg: DictConfig) -> None:
    from reg_sweep.training.data import check_split

    check_split(to_run_config(cfg).data)


def _refuse_several_choices(overrides: Iterable[str]) -> None:
    """Hydra merges a list's options one over the other: of norm=[bn,gbn] gbn would be trained, without a word."""
    for key, _, value in (o.lstrip("+").partition("=") for o in overrides):
        if key in _GROUPS_OF_ONE and value.startswith("["):
            raise ConfigError(errors.several_values(key, value))


def _refuse_other_keys(cfg: DictConfig, prefix: str = "") -> None:
    """Hydra's +key=value adds to the schema, where nothing would read it; its ~key takes away, and a default counts."""
    schema = OmegaConf.get_type(cfg)
    if not is_dataclass(schema):
        return
    names = [field.name for field in fields(schema)]
    for name in names:
        if name not in list(cfg):  # the mapping itself would resolve what it holds
            raise ConfigError(f"{prefix}{name} must be there, got ~{prefix}{name}: give it a value instead")
    for key in cfg:
        if key not in names:
            known = [f"{prefix}{name}" for name in names]
            raise ConfigError(errors.unknown_key(f"{prefix}{key!s}", known, _SWEEPER_SETTINGS))
        # An interpolation is resolved later, where an error knows its key.
        if not OmegaConf.is_interpolation(cfg, str(key)) and isinstance(cfg[key], DictConfig):
            _refuse_other_keys(cfg[key], f"{prefix}{key}.")


@hydra.main(config_path=str(CONF), config_name="config", **VERSION_BASE)
def _job(cfg: DictConfig) -> float | list[float]:
    config = HydraConfig.get()
    _refuse_several_choices(config.overrides.task)
    run = to_run_config(cfg)
    directory = Path(config.runtime.output_dir)

    def save_config() -> None:
        folder = directory / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": config}), folder / "hydra.yaml")
        OmegaConf.save(config.overrides.task, folder / "overrides.yaml")

    command = shlex.join([*launch_command(), *_own_arguments(cfg, config)])
    try:
        job = config.job.num if config.mode is RunMode.MULTIRUN else None
        record = train(run, directory, save_config, command, trial=_current_trial(), job=job)
    except (ConfigError, DataError) as error:
        if config.mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(_refuse(error)) from None  # an exception would be printed with Hydra's own line before it
    except OSError as error:
        if config.mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(_say_disk_failed(error)) from None
    if job is None and record["status"] == "diverged":
        raise SystemExit(1)  # of a sweep it is one result among others
    return _objective(run, record)


def _own_arguments(cfg: DictConfig, config: HydraConf) -> list[str]:
    """The arguments that run this job alone: what its study's file set is written out, the sweep's name left out."""
    own = [o for o in config.overrides.task if o.partition("=")[0].lstrip("+") not in _SWEEPS_OWN]
    main = next(source for source in config.runtime.config_sources if source.provider == "main").path
    name = str(config.job.config_name)

    def compose(overrides: list[str]) -> DictConfig:
        is_there = GlobalHydra.instance().is_initialized()  # not in a launcher's process
        with nullcontext() if is_there else hydra.initialize_config_dir(main, **VERSION_BASE):
            path = search_path_override(config.runtime, flagged_folders(config.runtime), absolute=True)
            return hydra.compose(name, [path, *overrides], return_hydra_config=True)

    choices = config.runtime.choices
    if choices.get("study") is not None:  # what its file set is the same for all trials that chose the same
        alike = repr((sorted(choices.items()), [o.partition("=")[0] for o in own]))
        if alike not in _missing:
            _missing[alike] = missing_overrides(cfg, choices, own, compose, _SWEEPS_OWN)
        own += _missing[alike]
    flags = [] if Path(main) == CONF else ["--config-path", main]
    flags += [] if name == "config" else ["--config-name", name]
    return [*flags, *search_path(config.runtime), *own]


# ---- what the sweeper gets


def _objective(run: RunConfig, record: RunRecord) -> float | list[float]:
    """The objective's values at the last epoch. A diverged run's are the worst there are.

    Raises:
        optuna.TrialPruned: the trial of the study that the run belongs to was pruned.
    """
    if record["status"] == "pruned":
        from reg_sweep.search import pruned_error

        raise pruned_error(record["message"] or "")
    values = [objective_value(name, record) for name in run.objectives]
    return values[0] if isinstance(run.objective, str) else values


def _current_trial() -> Trial | None:
    if "REG_SWEEP_TRIAL" not in os.environ:  # outside a study Optuna need not load
        return None
    from reg_sweep.search import current_trial

    trial: Trial | None = current_trial()
    return trial


# ---- before the first run, and after the last


class CheckAndReport(Callback):
    """Refuses what is out of range before the first run; writes the report at a multirun's end."""

    # What this process's command lacks to find its directory again. On the class, because Hydra makes the callback and
    # hands it to nobody.
    place: ClassVar[list[str]] = []
    is_composed: ClassVar[bool] = False  # before that, whatever is raised speaks of what was typed

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the run that is about to begin."""
        with _refusing():
            CheckAndReport.place = place_overrides(config, "run")
            _refuse_several_choices(config.hydra.overrides.task)
            _check(job_config(config))
        CheckAndReport.is_composed = True

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks a grid's jobs, and that its directory is no single run's."""
        with _refusing():
            _refuse_if(launched().refuses_multirun)
            CheckAndReport.place = place_overrides(config, "sweep")
            check_launcher(config.hydra.launcher)
            directory = Path(config.hydra.sweep.dir)
            if (directory / records.RUN_FILE).exists():
                said = f"{directory} must be new or hold this sweep, got a single run: choose another name=..."
                raise ConfigError(said)
            typed = list(config.hydra.overrides.task)
            _refuse_several_choices(typed)
            if is_basic_sweeper(config.hydra.sweeper):  # what a study proposes is checked when its turn comes
                _refuse_if(refusals.wrong_grid(refusals.parsed(typed)))
                loader = share_job_configs()
                for overrides in islice(grid_jobs(typed), _MAX_CHECKED):
                    _check(job_config(loader.load_sweep_config(config, overrides)))
        CheckAndReport.is_composed = True

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the report, and says its verdict."""
        if not config.report:
            return
        from reg_sweep.report import write_report

        root = Path(config.hydra.sweep.dir)
        if any(True for _ in records.find_runs(root)):
            report = write_report([root], root / "report")
            log.info("\n%s\nreport    %s", report.verdict, report.page)


# ---- the command line


@contextmanager
def _refusing() -> Iterator[None]:
    """Exits with one line where composing or checking a config fails: of a callback's exception Hydra only warns.

    Whatever is raised: Hydra and OmegaConf meet some values with errors of Python's own.
    """
    try:
        yield
    except Exception as error:
        raise SystemExit(_refuse(error)) from None


def _refuse_if(reason: str | None) -> None:
    if reason is not None:
        raise ConfigError(reason)


def _refuse_typed(arguments: list[str]) -> None:
    """Refuses what Hydra lets through, or trips over.

    Raises:
        ConfigError: a group gets no option's name, a switch a number, or what every run needs is deleted.
    """
    typed = refusals.parsed([a for a in arguments if not a.startswith("-")])
    _refuse_if(refusals.wrong_choice(typed, lambda key: key.startswith("hydra/") or (CONF / key).is_dir()))
    _refuse_if(refusals.wrong_deletion(typed, {field.name for field in fields(RunConfig)}))
    _refuse_if(refusals.wrong_switch(typed, _SWITCHES))
    _refuse_if(refusals.wrong_space(typed))


def _refuse(error: BaseException) -> int:
    said = errors.explain(error, _SWEEPER_SETTINGS, overrides_and_flags(sys.argv[1:])[0])
    tell(f"reg_sweep: error: {public_text(said)}")
    return 2


def _say_disk_failed(error: OSError) -> int:
    command = _continue_command()
    tell(f"reg_sweep: error: {error}; what was finished stays, continue with {command}")
    return 1


def _continue_command() -> str:
    """The command line as it was typed, with the name of what it started."""
    return shlex.join([*launch_command(), *continuing_arguments(CheckAndReport.place)])


def main() -> None:
    """The command line. Errors in the config end with one line and exit code 2, other errors with a traceback."""
    sys.argv[1:] = placed_beside_study(*overrides_and_flags(sys.argv[1:]))
    if full_error_is_asked():
        _job()
        return
    logging.raiseExceptions = False  # or a full disk is a traceback for each line of Hydra's log, before it is told
    CheckAndReport.is_composed = False
    _missing.clear()
    try:
        _refuse_typed(sys.argv[1:])
        with raised_errors():
            _job()
    except (Interrupted, KeyboardInterrupt) as stopped:
        tell(f"stopped; continue with\n  {_continue_command()}")
        raise SystemExit(stopped.exit_code if isinstance(stopped, Interrupted) else 130) from None
    except (ConfigError, DataError, HydraException, OmegaConfBaseException) as error:
        raise SystemExit(_refuse(error)) from None
    except OSError as error:
        raise SystemExit(_say_disk_failed(error)) from None
    except Exception as error:
        launchers = broken(error)
        if CheckAndReport.is_composed and launchers is None:
            raise
        raise SystemExit(_refuse(launchers or error)) from None
    finally:
        logging.raiseExceptions = True


if __name__ == "__main__":
    from reg_sweep import train as imported

    imported.main()  # not this copy's: Hydra's callback, which knows the run's name, is the imported module's
