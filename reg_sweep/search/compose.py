"""Composes an app's configs: quickly for each job, and with the values that all jobs must share."""

import copy
import os
import pickle
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from reg_sweep.hydra_app.command_line import TypedCommand
from reg_sweep.hydra_app.internals import Loader, element_text, note_overrides
from reg_sweep.hydra_app.overrides import search_path_override, search_path_overrides
from reg_sweep.runs.addresses import is_secret
from reg_sweep.search.parameter import Parameter
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import Space

STORAGE_VARIABLE = "REG_SWEEP_STORAGE"
# Numbers that Hydra's grammar and Python parse to the same value.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class App:
    """The app that is swept.

    Attributes:
        config: the sweep's config, as Hydra composed it.
        loader: Hydra's loader, which composes other configs of the app.
        typed: the command line that started the sweep; None if a program did.
    """

    config: DictConfig
    loader: ConfigLoader
    typed: TypedCommand | None = None

    def parsed(self, overrides: Sequence[str]) -> list[Override]:
        """Parses overrides in Hydra's grammar; globs match the app's own config files."""
        return OverridesParser.create(config_loader=self.loader).parse_overrides(list(overrides))

    def again(self, *more: str) -> str:
        """The command that resumes the sweep, with more overrides; described in words if a program started it."""
        if self.typed is None:
            return f"the same call{' with ' if more else ''}{' '.join(more)}"
        return self.typed.again(*more)

    def job_config(self, overrides: list[str]) -> DictConfig:
        """The config of a job of this sweep."""
        return self.loader.load_sweep_config(self.config, overrides)

    def is_group(self, job: DictConfig, name: str) -> bool:
        """Whether `name` is a config group of the app or of hydra.searchpath, which the loader does not remember."""
        chosen = {choice.partition("@")[0] for choice in map(str, job.hydra.runtime.choices)}
        return name in chosen or bool(self.loader.get_group_options(name))

    def run_config(self, overrides: list[str], folders: Sequence[str] = ()) -> DictConfig:
        """The config of a single run without this command's overrides, from the same config folders and `folders`."""
        hydra = self.config.hydra
        found = [search_path_override(hydra.runtime, folders, absolute=True)] if folders else []
        whole = [*(found or search_path_overrides(hydra)), *overrides]
        return self.loader.load_configuration(hydra.job.config_name, whole, RunMode.RUN)

    def sweep_config(self, overrides: list[str]) -> DictConfig:
        """The config of another sweep of the app with these overrides."""
        return self.loader.load_configuration(self.config.hydra.job.config_name, overrides, RunMode.MULTIRUN)


class JobComposer(Loader):
    """A config loader that composes once for each combination of choices, and sets numbers in a copy.

    Hydra takes 40 ms to compose a job, although its config differs from the last one in a few numbers only. And a job
    is composed several times: for the check before the study begins, the launcher, and the best run's file.
    """

    MOST_KEPT = 32  # templates of half a megabyte each

    def __init__(self, loader: ConfigLoader) -> None:
        """Composes like `loader` until `prepare` determines which keys are numbers."""
        super().__init__(loader)
        self._numbers: set[str] = set()
        self._templates: dict[tuple[str, ...], _Template] = {}

    def prepare(self, space: Space, groups: Container[str]) -> None:
        """Determines which keys of the space have plain numbers as values and can be set in a copied config.

        Afterwards, the values that the sweep's config gives to all jobs must not change.
        """
        self._templates.clear()
        # Left to Hydra: keys with a +, which the config may lack, and keys below a fixed override, such as a.b with
        # a={b: 1}, where the order of the command matters.
        self._numbers = {
            key
            for key in (p.key for p in space.parameters.values() if self._has_numbers_alone(p, groups))
            if not key.startswith("+") and not any(key.startswith(f"{fixed}.") for fixed in space.fixed)
        }

    def _has_numbers_alone(self, parameter: Parameter, groups: Container[str]) -> bool:
        if not parameter.texts:  # an interval or a range
            return True
        is_group = parameter.key in groups or bool(self.get_group_options(parameter.key))
        return not is_group and all(_NUMBER.fullmatch(text) for text in parameter.texts.values())

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The job's config, equal to what Hydra's own loader returns for these overrides."""
        texts = dict(o.split("=", 1) for o in sweep_overrides if o.partition("=")[0] in self._numbers)
        rest = tuple(o for o in sweep_overrides if o.partition("=")[0] not in self._numbers)
        # `rest` chooses files or sets other values than numbers: compose once for each combination.
        if rest not in self._templates:
            while len(self._templates) >= self.MOST_KEPT:
                del self._templates[next(iter(self._templates))]
            composed = self._loader.load_sweep_config(master_config, sweep_overrides)
            check_same_sweep(composed, master_config, sweep_overrides)
            self._templates[rest] = _Template(composed)
        config = self._templates[rest].copy()
        for key, text in texts.items():
            # Parsed as in Hydra's grammar. `merge` keeps the type that a structured config demands.
            OmegaConf.update(config, key, int(text) if text.lstrip("-").isdecimal() else float(text), merge=True)
        note_overrides(config, sweep_overrides)
        return config


class _Template:
    """A composed config, to be copied for each job."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        try:
            self._pickled = pickle.dumps(config)
        except Exception:  # it holds an object or class that can't be pickled
            self._pickled = b""

    def copy(self) -> DictConfig:
        """A copy, including the resolver cache, so that ${now:} is the same in all jobs of a sweep."""
        if not self._pickled:
            return copy.deepcopy(self._config)
        config: DictConfig = pickle.loads(self._pickled)  # a quarter of deepcopy's time
        OmegaConf.copy_cache(from_config=self._config, to_config=config)
        return config


def check_same_sweep(job: DictConfig, sweep: DictConfig, overrides: Sequence[str]) -> None:
    """Refuses a job that sets the launcher, sweeper or directory of the sweep: its choice would be ignored.

    Raises:
        StudyError: one of these differs from the sweep's.
    """
    for node in ("launcher", "sweeper", "sweep"):
        wanted, is_so = (OmegaConf.to_container(c.hydra[node], resolve=False) for c in (job, sweep))
        assert isinstance(wanted, dict)
        assert isinstance(is_so, dict)
        # Compared as text, because nan is not equal to itself.
        keys = [str(key) for key in wanted | is_so if repr(wanted.get(key)) != repr(is_so.get(key))]
        if keys:
            raise StudyError(
                f"{' '.join(overrides)} sets hydra.{node} ({', '.join(keys)}), which must be the same for all jobs of a"
                f" sweep: set it for the whole sweep instead of sweeping it"
            )


def pin(config: DictConfig, key: str, value: str) -> None:
    """Gives a hydra key the same value in all jobs, in every process that composes their configs."""
    text = QuotedString(value, Quote.single).with_quotes()
    # Hydra locks its own node once it is composed.
    OmegaConf.set_readonly(config.hydra, False)
    with open_dict(config.hydra):
        OmegaConf.update(config, key, value)
        # A launcher's process composes from the overrides, not from this config: they must contain the value.
        overrides = config.hydra.overrides
        written = OmegaConf.to_container(overrides.hydra, resolve=False)  # unresolved: it may refer to a secret
        assert isinstance(written, list)
        kept = [without_key(str(o), key) for o in written]
        overrides.hydra = [*(o for o in kept if o is not None), f"{key}={text}"]


def without_key(override: str, key: str) -> str | None:
    """Removes a key from an override, even if it sets a node above the key; None if nothing remains."""
    parsed = OverridesParser.create().parse_override(override)
    node, value = parsed.key_or_group, parsed.value()
    if node == key:
        return None
    if not key.startswith(f"{node}.") or not isinstance(value, dict):
        return override
    left = _without(value, key.removeprefix(f"{node}.").split("."))
    return f"{parsed.get_key_element()}={element_text(left)}" if left else None


def _without(value: dict[Any, Any], path: list[str]) -> dict[Any, Any]:
    """A copy of a dict without the value at a path."""
    first, *rest = path
    kept = {k: v for k, v in value.items() if str(k) != first}
    within = next((v for k, v in value.items() if str(k) == first), None)
    if rest and isinstance(within, dict):
        kept[first] = _without(within, rest)
    return kept


def hide_storage(config: DictConfig) -> None:
    """Keeps a server's address out of all files that Hydra and launchers write; jobs read it from the environment."""
    _hide(config)
    held: Any = HydraConfig.instance().cfg  # annotated as HydraConf, but a DictConfig
    if held is not None:  # Hydra 1.4 keeps a copy here while it sweeps, which launchers pickle
        _hide(held)


def _hide(config: DictConfig) -> None:
    written = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    assert isinstance(written, dict)
    location = written.get("storage")
    # An interpolation in the config does not contain the address itself.
    if isinstance(location, str) and "${" not in location and is_secret(location):
        os.environ[STORAGE_VARIABLE] = location
        pin(config, "hydra.sweeper.storage", f"${{oc.env:{STORAGE_VARIABLE}}}")
