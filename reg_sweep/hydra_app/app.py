"""The command under Hydra: schema and resolvers, checks before the first run, and the command that a run records.

The entry point, `reg_sweep/train.py`, registers these with Hydra and connects them to training, search and report.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from reg_sweep.config.digest import digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.config.targets import CONF
from reg_sweep.hydra_app import errors, refusals
from reg_sweep.hydra_app.command_line import place_overrides
from reg_sweep.hydra_app.internals import (
    VERSION_BASE,
    grid_jobs,
    is_basic_sweeper,
    job_config,
    register_resolver,
    shared_job_configs,
    store_config,
)
from reg_sweep.hydra_app.overrides import (
    flagged_folders,
    missing_overrides,
    search_path,
    search_path_override,
    written_overrides,
)
from reg_sweep.runs.files import first_missing, remove_empty
from reg_sweep.runs.folders import Work, begin_sweep, check_own, job_folder, withdraw_sweep

_SWITCHES = {"report", "data.offline_sample", "optimizer.nesterov"}
_GROUPS_OF_ONE = {
    *("data", "model", "norm", "penalty", "optimizer", "schedule", "runtime", "study"),
    *("loss", "mix", "averaging", "l1_schedule", "l2_schedule"),
}
_SWEEPS_OWN = ("name", "report", "study", "cluster")  # settings that a single job does not inherit from its sweep
_missing: dict[str, list[str]] = {}  # by choices: overrides missing from the commands of this sweep's trials
_until_end = ExitStack()  # what a command changes in Hydra, and undoes at its end
_MAX_CHECKED = 500  # jobs of a grid that are checked in advance; the rest are checked when they begin


# ---- what Hydra composes


def register(new_name: Callable[[], str], ranks: int) -> None:
    """Registers the schema and the resolvers that `conf/` uses with Hydra.

    Args:
        new_name: makes a name for a run that was given none.
        ranks: the number of processes that train a run together.
    """
    store_config("schema", _schema(ranks))
    # `replace`, because Hydra imports the entry point a second time for its callback if it was run as __main__.
    register_resolver("reg_sweep.new_name", new_name, use_cache=True, replace=True)
    register_resolver("reg_sweep.job_folder", _job_folder, replace=True)
    register_resolver("reg_sweep.content_name", _content_name, replace=True)


def _schema(ranks: int) -> DictConfig:
    """RunConfig's types and defaults, without those that belong to one choice of a group and are in its file."""
    schema: DictConfig = OmegaConf.structured(RunConfig)
    schema.model, schema.data.source = {}, {}
    # A mapping can't be merged into null; here every argument of the callable is a key.
    for group in (schema.optimizer, schema.schedule, schema.loss):
        group.source = {}
        OmegaConf.set_struct(group.source, False)
    OmegaConf.set_struct(schema.penalties, False)  # +penalties.NAME={...} penalties.NAME.strength=0,0.01
    schema.optimizer.momentum, schema.optimizer.nesterov = None, None
    schema.runtime.ranks = ranks
    return schema


def _job_folder(_root_: DictConfig) -> str:
    """The folder of a sweep's job: its number, as in a study, or in a grid the folder that belongs to its config."""
    number = _root_.hydra.job.num
    if not is_basic_sweeper(_root_.hydra.sweeper):
        return str(number)
    config = _config_of(job_config(_root_))
    return str(number) if config is None else job_folder(Path(_root_.hydra.sweep.dir), number, config)


def _content_name(_root_: DictConfig) -> str:
    """A name derived from the settings, so that a job requeued by a cluster finds its folder and resumes."""
    cfg = job_config(_root_)
    with read_write(cfg), open_dict(cfg):
        cfg.name = "run"  # the name itself may be the value being resolved
    config = _config_of(cfg)
    return "refused" if config is None else f"run_{digest(config)}"


def _config_of(cfg: DictConfig) -> dict[str, Any] | None:
    """A run's config as a dict while Hydra composes it; None if it is invalid, which is reported later."""
    try:
        return to_dict(to_run_config(cfg))
    except (ConfigError, OmegaConfBaseException):
        return None


def to_run_config(cfg: DictConfig) -> RunConfig:
    """Converts Hydra's composed config to a RunConfig.

    Raises:
        ConfigError: a key is unknown, or a value is out of range.
    """
    refuse_other_keys(cfg)
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    return run


def refuse_several_choices(overrides: Iterable[str]) -> None:
    """Refuses a list of options: Hydra merges them in order, so norm=[bn,gbn] would silently train gbn."""
    for key, _, value in (o.lstrip("+").partition("=") for o in overrides):
        if key in _GROUPS_OF_ONE and value.startswith("["):
            raise ConfigError(errors.several_values(key, value))


def refuse_other_keys(cfg: DictConfig, prefix: str = "") -> None:
    """Refuses +key=value, which would have no effect, and ~key, which would silently restore a default."""
    schema = OmegaConf.get_type(cfg)
    if not is_dataclass(schema):
        return
    names = [field.name for field in fields(schema)]
    for name in names:
        if name not in list(cfg):  # `name in cfg` would resolve the value
            raise ConfigError(f"{prefix}{name} must be set, got ~{prefix}{name}: give it a value instead")
    for key in cfg:
        if key not in names:
            known = [f"{prefix}{name}" for name in names]
            raise ConfigError(errors.unknown_key(f"{prefix}{key!s}", known))
        # Interpolations are resolved later, where an error can name the key.
        if not OmegaConf.is_interpolation(cfg, str(key)) and isinstance(cfg[key], DictConfig):
            refuse_other_keys(cfg[key], f"{prefix}{key}.")


# ---- the command that a run records


def own_arguments(cfg: DictConfig, config: HydraConf) -> list[str]:
    """The arguments that run this job by itself: with the settings of its study's file, without the sweep's name."""
    own = [o for o in config.overrides.task if o.partition("=")[0].lstrip("+") not in _SWEEPS_OWN]
    main = next(source for source in config.runtime.config_sources if source.provider == "main").path
    name = str(config.job.config_name)

    def compose(overrides: list[str]) -> DictConfig:
        is_there = GlobalHydra.instance().is_initialized()  # False in a launcher's process
        with nullcontext() if is_there else hydra.initialize_config_dir(main, **VERSION_BASE):
            path = search_path_override(config.runtime, flagged_folders(config.runtime), absolute=True)
            return hydra.compose(name, [path, *overrides], return_hydra_config=True)

    choices = config.runtime.choices
    if choices.get("study") is not None:  # the file's settings are the same for all trials with the same choices
        alike = repr((sorted(choices.items()), [o.partition("=")[0] for o in own]))
        if alike not in _missing:
            _missing[alike] = missing_overrides(cfg, choices, own, compose, _SWEEPS_OWN)
        own += _missing[alike]
    flags = [] if Path(main) == CONF else ["--config-path", main]
    flags += [] if name == "config" else ["--config-name", name]
    return [*flags, *search_path(config.runtime), *own]


# ---- before the first run


class Checks(Callback, ABC):
    """A Hydra callback that refuses invalid settings before the first run, and ends the command.

    The entry point implements the checks of a run's config and a multirun's launcher, and prints the refusal.
    """

    # Class variables, because Hydra creates the callback and gives no access to it.
    place: ClassVar[list[str]] = []  # overrides that this process's command needs to find its directory again
    begun: ClassVar[bool] = False  # whether this process has just begun a sweep
    folder: ClassVar[Path | None] = None  # the folder of the run or sweep
    made: ClassVar[Path | None] = None  # the topmost folder created for it
    is_composed: ClassVar[bool] = False  # until then, every error is about the typed settings

    @abstractmethod
    def check(self, cfg: DictConfig) -> None:
        """Raises if the run of this config can't be trained."""

    @abstractmethod
    def check_multirun(self, launcher: DictConfig) -> None:
        """Raises if this launcher can't start a multirun here."""

    @abstractmethod
    def check_jobs(self, launcher: DictConfig, jobs: list[DictConfig]) -> None:
        """Raises if this launcher can't run these jobs: the config of a single run, or those of a grid."""

    @abstractmethod
    def refuse(self, error: Exception) -> int:
        """Prints why the command can't run, and returns the exit code."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the run that is about to begin."""
        with self._refusing():
            Checks.place = place_overrides(config, "run")
            refuse_several_choices(written_overrides(config.hydra, "task"))
            self.check(job_config(config))
            self.check_jobs(config.hydra.launcher, [job_config(config)])
            Checks.folder = Path(config.hydra.run.dir).absolute()
            Checks.made = first_missing(Checks.folder)  # Hydra creates it next
        Checks.is_composed = True

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks a grid's jobs, and that its directory holds no other kind of work."""
        with self._refusing():
            Checks.place = place_overrides(config, "sweep")
            self.check_multirun(config.hydra.launcher)
            directory = Path(config.hydra.sweep.dir).absolute()
            work: Work = "grid" if is_basic_sweeper(config.hydra.sweeper) else "study"
            check_own(directory, work)
            typed = written_overrides(config.hydra, "task")
            refuse_several_choices(typed)
            if is_basic_sweeper(config.hydra.sweeper):  # a study's trials are checked when they begin
                refuse_if(refusals.wrong_grid(refusals.parsed(typed)))
                loader = _until_end.enter_context(shared_job_configs())
                checked = islice(grid_jobs(typed), _MAX_CHECKED)
                jobs = [job_config(loader.load_sweep_config(config, overrides)) for overrides in checked]
                for job in jobs:
                    self.check(job)
                self.check_jobs(config.hydra.launcher, jobs)
            Checks.folder, Checks.made = directory, first_missing(directory)
            try:
                Checks.begun = begin_sweep(directory, work)
            except OSError as error:
                refuse_if(errors.unwritable(error, "sweep", directory))
                raise
        Checks.is_composed = True

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Exits with one line if composing or checking a config fails: Hydra only warns of a callback's exceptions.

        Catches every exception, because some values make Hydra and OmegaConf raise Python's built-in ones.
        """
        try:
            yield
        except Exception as error:
            raise SystemExit(self.refuse(error)) from None


def begin_command() -> None:
    """Clears the state of an earlier command in this process."""
    Checks.is_composed, Checks.begun = False, False
    Checks.folder, Checks.made = None, None
    _missing.clear()


def end_command() -> None:
    """Gives Hydra its own loader back, and removes the folder of a run or sweep that was refused before it began."""
    _until_end.close()
    if Checks.folder is None:
        return
    if Checks.begun:
        withdraw_sweep(Checks.folder)
    if Checks.made is not None:
        remove_empty(Checks.folder, Checks.made)


def refuse_typed(arguments: list[str]) -> None:
    """Refuses arguments that Hydra wrongly accepts or crashes on.

    Raises:
        ConfigError: for example, a group's value is not an option, or a required setting is deleted.
    """
    refuse_if(refusals.wrong_flag(arguments, errors.meant))
    typed = refusals.parsed([a for a in arguments if not a.startswith("-")])
    refuse_if(refusals.wrong_flags(arguments, typed))
    refuse_if(refusals.wrong_node(typed))
    refuse_if(refusals.wrong_choice(typed, lambda key: key.startswith("hydra/") or (CONF / key).is_dir()))
    refuse_if(refusals.wrong_deletion(typed, {field.name for field in fields(RunConfig)}))
    refuse_if(refusals.wrong_switch(typed, _SWITCHES))
    refuse_if(refusals.wrong_space(typed))


def refuse_if(reason: str | None) -> None:
    """Raises a ConfigError if there is a reason."""
    if reason is not None:
        raise ConfigError(reason)
