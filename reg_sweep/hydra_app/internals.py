"""What Hydra offers under private names alone: checked on Hydra 1.3.8 and 1.4.0rc3, pinned to >=1.3.2,<1.5.

A new version of Hydra needs this file checked; `optuna_internals` is its like for Optuna.
"""

import copy
import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

_IS_1_3 = hydra.__version__.startswith("1.3.")
# Hydra 1.3 asks for the version whose defaults count; 1.4 has these alone, and warns of who asks.
VERSION_BASE = {"version_base": "1.3"} if _IS_1_3 else {}
# OmegaConf 2.4, which comes with Hydra 1.4, warns of the one name; before, the other was that of something older.
register_resolver: Callable[..., None] = OmegaConf.register_new_resolver if _IS_1_3 else OmegaConf.register_resolver


def parsed_flags(arguments: Sequence[str]) -> Namespace:
    """A command line's flags as Hydra's own parser reads them, abbreviations included."""
    flags: Namespace = get_args(list(arguments))
    return flags


# The first is Hydra's; a study's workers inherit both, and learn from the second that no user asked for tracebacks.
_RAISES = {"HYDRA_FULL_ERROR": "1", "REG_SWEEP_EXPLAINS_ERRORS": "1"}


@contextmanager
def raised_errors() -> Iterator[None]:
    """Hydra raises an app's errors, for who starts it to explain, instead of printing several lines and exiting."""
    os.environ.update(_RAISES)
    try:
        yield
    finally:
        for name in _RAISES:
            os.environ.pop(name, None)


def full_error_is_asked() -> bool:
    """Whether the user wants an error's traceback."""
    return bool(os.environ.get("HYDRA_FULL_ERROR")) and "REG_SWEEP_EXPLAINS_ERRORS" not in os.environ


def element_text(element: Any) -> str:
    """One element of a sweep as it would be typed, quotes included: public is only the text of a whole override."""
    return str(Override._get_value_element_as_str(element))


def is_basic_sweeper(sweeper: DictConfig) -> bool:
    """Whether a multirun is a plain grid: what another sweeper proposes, it alone knows."""
    return str(sweeper["_target_"]).endswith(".BasicSweeper")


def grid_jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a plain grid, in the order of the jobs: public is only a sweep of them."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        yield from map(list, batch)


def job_config(config: DictConfig) -> DictConfig:
    """What Hydra hands to a job of this composed config: all but its own node. It makes that within its `run_job`."""
    cfg = copy.deepcopy(config)
    with read_write(cfg), open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


class Loader:
    """Hydra's config loader, of which a subclass does something else; that of Hydra is made by Hydra alone."""

    def __init__(self, loader: ConfigLoader) -> None:
        """Composes like `loader`."""
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        """All that is not defined here is the loader's."""
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Goes to a launcher's process as the plain loader."""
        return copy.copy, (self._loader,)


class CommandLoader(Loader):
    """Composes a command's config once: Hydra does to read `hydra.mode` in it, and again to do what that says."""

    _for_mode: tuple[list[str], DictConfig] | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The config, equal to what Hydra's loader gives."""
        asked, self._for_mode = self._for_mode, None
        config = None
        if validate_sweep_overrides and asked is not None:
            config = _in_mode(run_mode, *asked, overrides)
        if config is not None:
            parsed = OverridesParser.create(config_loader=self._loader).parse_overrides(overrides)
            self._loader.validate_sweep_overrides_legal(parsed, run_mode, from_shell)  # type: ignore[attr-defined]
            return config
        config = self._loader.load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        if not validate_sweep_overrides:  # so composes who asks for the mode, alone
            self._for_mode = list(overrides), config
        return config


def _in_mode(mode: RunMode, known: list[str], config: DictConfig, overrides: list[str]) -> DictConfig | None:
    """A config that was composed to ask for its mode, in that mode; None where it is not the command's own.

    Hydra adds an override where no file sets the mode. A run refuses a group of which no option was chosen yet.
    """
    settled = [f"hydra.mode={mode.name}"]
    choices = config.hydra.runtime.choices
    is_open = any(OmegaConf.is_missing(choices, group) for group in choices)
    if (is_open and mode is RunMode.RUN) or overrides not in (known, known + settled):
        return None
    if overrides != known:
        OmegaConf.update(config, "hydra.mode", mode)
        config.hydra.overrides.hydra.extend(settled)
    return config


def compose_commands_once() -> None:
    """Makes that so for every command of this process; Hydra 1.4, which asks in another way, is left as it is."""
    if not _IS_1_3:
        return
    asked = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        if not isinstance(self.config_loader, CommandLoader):
            self.config_loader = CommandLoader(self.config_loader)  # type: ignore[assignment]
        return asked(self, config_name, overrides)

    Hydra.get_mode = get_mode  # type: ignore[method-assign]


class JobLoader(Loader):
    """Hydra's config loader, which composes a grid's job once, though three ask for it: a check, Hydra's, the launcher.

    Composing takes Hydra a tenth of a second, copying what is composed a tenth of that.
    """

    MOST_KEPT = 100  # each is half a megabyte

    def __init__(self, loader: ConfigLoader) -> None:
        """Composes like `loader`."""
        super().__init__(loader)
        self._kept: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The job's config, equal to what Hydra's loader gives for these overrides."""
        job = tuple(sweep_overrides)
        if job not in self._kept:
            config = self._loader.load_sweep_config(master_config, sweep_overrides)
            if len(self._kept) >= self.MOST_KEPT:
                return config
            self._kept[job] = config
        config = copy.deepcopy(self._kept[job])  # the launcher writes the job's number into it
        OmegaConf.copy_cache(from_config=master_config, to_config=config)  # as Hydra's does: ${now:} is all jobs'
        return config


def share_job_configs() -> JobLoader:
    """Gives the sweep that begins a loader which composes each of its jobs once."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    loader = JobLoader(hydra.config_loader)
    hydra.config_loader = loader  # type: ignore[assignment]
    return loader


def is_basic_launcher(launcher: DictConfig) -> bool:
    """Whether jobs run in this process, one by one: Hydra's own launcher does, and has no public name to compare."""
    return str(launcher["_target_"]).endswith(".BasicLauncher")


def job_error(job: JobReturn) -> Exception | None:
    """What a job raised, if it did: the public property raises it again, and prints a line."""
    error = job._return_value
    return error if job.status is JobStatus.FAILED and isinstance(error, Exception) else None


def basic_launcher(*, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    """Hydra's own launcher, whichever the config names."""
    launcher = BasicLauncher()
    launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return launcher


def quiet_basic_launcher() -> None:
    """Keeps Hydra's launcher from announcing every job: the study has a line of its own for each trial."""
    logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)


def note_overrides(config: DictConfig, overrides: list[str]) -> None:
    """Notes a job's overrides in its config as Hydra's loader does, for a config that the loader did not compose.

    Hydra does this within `ConfigLoaderImpl.load_configuration`, where nothing else can call it.
    """
    job = config.hydra.job
    config.hydra.overrides.task = list(overrides)
    if not _IS_1_3:  # the name is a resolver's, which reads the overrides themselves
        return
    format_ = job.config.override_dirname
    lines = sorted(o for o in overrides if o.partition("=")[0].lstrip("+~") not in format_.exclude_keys)
    job.override_dirname = format_.item_sep.join(lines).replace("=", format_.kv_sep)


def share_config_store() -> None:
    """Lets a config be composed without a copy of all configs that anyone has stored: there is one store, by its class.

    Hydra copies its sources before each composition and each question about a group, the store with them: most of the
    time of `--help`, and a good part of each job's start. What is loaded from the store is copied as ever.
    """
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
