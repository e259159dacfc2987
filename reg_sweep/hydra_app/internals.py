"""All uses of Hydra's private names, checked on Hydra 1.3.8 and 1.4.0rc3; the dependency is pinned to >=1.3.2,<1.5.

Check this file for each new version of Hydra, and `search/optuna_internals.py` for each of Optuna. None of Hydra's
classes is changed.
"""

import copy
import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import hydra
import hydra.utils
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

_IS_1_3 = hydra.__version__.startswith("1.3.")
# Hydra 1.3 asks for the version whose defaults apply; 1.4 has only the defaults of 1.3, and warns if it is given.
VERSION_BASE = {"version_base": "1.3"} if _IS_1_3 else {}
# With OmegaConf 2.4 (Hydra 1.4), register_new_resolver is deprecated; before, register_resolver had an older meaning.
register_resolver: Callable[..., None] = OmegaConf.register_new_resolver if _IS_1_3 else OmegaConf.register_resolver


def parsed_flags(arguments: Sequence[str]) -> Namespace:
    """A command line's flags as parsed by Hydra's own parser, including abbreviations."""
    flags: Namespace = get_args(list(arguments))
    return flags


# A study's workers inherit both variables. The first is Hydra's; the second records that the user didn't set the first.
_RAISES = {"HYDRA_FULL_ERROR": "1", "REG_SWEEP_EXPLAINS_ERRORS": "1"}


@contextmanager
def raised_errors() -> Iterator[None]:
    """Within the block, Hydra raises an app's errors instead of printing several lines and exiting."""
    os.environ.update(_RAISES)
    try:
        yield
    finally:
        for name in _RAISES:
            os.environ.pop(name, None)


def full_error_is_asked() -> bool:
    """Whether the user asked for tracebacks of errors."""
    return bool(os.environ.get("HYDRA_FULL_ERROR")) and "REG_SWEEP_EXPLAINS_ERRORS" not in os.environ


def element_text(element: Any) -> str:
    """One element of a sweep as typed, with quotes; Hydra's public API only offers the text of a whole override."""
    return str(Override._get_value_element_as_str(element))


def is_basic_sweeper(sweeper: DictConfig) -> bool:
    """Whether a multirun is a plain grid, whose jobs are known before they run."""
    return str(sweeper["_target_"]).endswith(".BasicSweeper")


def grid_jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a plain grid, in order; Hydra's public API can only run them."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        yield from map(list, batch)


def job_config(config: DictConfig) -> DictConfig:
    """The config that Hydra passes to a job, without the hydra node, as in its `run_job`."""
    cfg = copy.deepcopy(config)
    with read_write(cfg), open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


class Loader:
    """A wrapper of Hydra's config loader, for subclasses that replace some of its methods."""

    def __init__(self, loader: ConfigLoader) -> None:
        """Composes like `loader`."""
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        """Delegates everything else to the loader."""
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Is pickled as the plain loader."""
        return copy.copy, (self._loader,)


class JobLoader(Loader):
    """Hydra's config loader with a cache: our check, Hydra and the launcher each load the configs of a grid's jobs.

    Composing takes a tenth of a second, copying a composed config a tenth of that.
    """

    MOST_KEPT = 100  # configs of half a megabyte each

    def __init__(self, loader: ConfigLoader) -> None:
        """Composes like `loader`."""
        super().__init__(loader)
        self._kept: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The job's config, equal to what Hydra's own loader returns for these overrides."""
        job = tuple(sweep_overrides)
        if job not in self._kept:
            config = self._loader.load_sweep_config(master_config, sweep_overrides)
            if len(self._kept) >= self.MOST_KEPT:
                return config
            self._kept[job] = config
        config = copy.deepcopy(self._kept[job])  # the launcher writes the job's number into it
        OmegaConf.copy_cache(from_config=master_config, to_config=config)  # as Hydra does: ${now:} is the same for all
        return config


@contextmanager
def shared_job_configs() -> Iterator[JobLoader]:
    """Within the block, the loader of the sweep that begins composes each job only once."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    before = hydra.config_loader
    loader = JobLoader(before)
    hydra.config_loader = loader  # type: ignore[assignment]
    try:
        yield loader
    finally:
        hydra.config_loader = before


def is_basic_launcher(launcher: DictConfig) -> bool:
    """Whether this is Hydra's own launcher, which runs jobs one by one in this process; it has no public name."""
    return str(launcher["_target_"]).endswith(".BasicLauncher")


def job_error(job: JobReturn) -> Exception | None:
    """The exception of a failed job. (The public property raises it again and prints a line.)"""
    error = job._return_value
    return error if job.status is JobStatus.FAILED and isinstance(error, Exception) else None


def basic_launcher(*, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    """Makes Hydra's own launcher, whichever launcher the config names."""
    launcher = BasicLauncher()
    launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return launcher


@contextmanager
def quiet_basic_launcher() -> Iterator[None]:
    """Within the block, launchers in this process don't log each job: the study logs each trial itself."""
    launchers = ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins.reg_sweep_plugins.population")
    levels = {logger: logger.level for logger in map(logging.getLogger, launchers)}
    for logger in levels:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def note_overrides(config: DictConfig, overrides: list[str]) -> None:
    """Writes a job's overrides into its config as Hydra's loader does, for a config that the loader did not compose.

    Hydra does this within `ConfigLoaderImpl.load_configuration`, and has no separate function for it.
    """
    job = config.hydra.job
    config.hydra.overrides.task = list(overrides)
    if not _IS_1_3:  # in 1.4, override_dirname is a resolver that reads the overrides
        return
    format_ = job.config.override_dirname
    lines = sorted(o for o in overrides if o.partition("=")[0].lstrip("+~") not in format_.exclude_keys)
    job.override_dirname = format_.item_sep.join(lines).replace("=", format_.kv_sep)


@contextmanager
def shared_config_store() -> Iterator[None]:
    """Within the block, the options of groups are looked up without copying the whole config store; only for `--help`.

    Hydra copies its sources, including the process's only store, before each look-up and each composition, which costs
    10 ms. Our command's `--help` looks up 146 times: this saves 1.6 of its 2.2 s of CPU. A run or a sweep would save
    only 0.1 s in all, so there the store is left alone. Only the store object is changed, not its class.
    """
    store = ConfigStore.instance()
    is_outermost = "__deepcopy__" not in store.__dict__
    store.__dict__["__deepcopy__"] = lambda memo: store
    try:
        yield
    finally:
        if is_outermost:
            del store.__dict__["__deepcopy__"]


def store_config(name: str, node: Any) -> None:
    """Stores a config under a name and replaces an existing one, which Hydra 1.4 only does if asked explicitly."""
    replaced: dict[str, Any] = {} if _IS_1_3 else {"replace": True}
    ConfigStore.instance().store(name=name, node=node, **replaced)


def instantiate(spec: dict[str, Any], *, allowed: list[str], **arguments: Any) -> Any:
    """Makes an object of the class that a config names by `_target_`; Hydra 1.4 asks which classes are `allowed`."""
    if not _IS_1_3:
        arguments["_execution_whitelist_"] = allowed
    return hydra.utils.instantiate(spec, _convert_="all", **arguments)


def every_target_allowed() -> AbstractContextManager[Any]:
    """Within the block, lets Hydra 1.4 import any class that a config names by `_target_`, as Hydra 1.3 does."""
    if _IS_1_3:
        return nullcontext()
    utils: Any = hydra.utils  # of 1.4
    allowed: AbstractContextManager[Any] = utils.execution_whitelist(utils.UNSAFE_DISABLE_EXECUTION_CHECKS)
    return allowed
