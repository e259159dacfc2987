"""A stranger's Hydra app that prints what others have changed in its libraries since it was imported.

It looks in each job, at its end and, with Hydra 1.3, each time that Hydra composes a config: Hydra 1.4 calls no
resolver there.
"""

import inspect
import sys
import warnings

import hydra
import optuna.storages.journal  # noqa: F401 # loaded before the first look
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf

LIBRARIES = ("hydra", "omegaconf", "optuna", "torch", "copy", "os")


def members():
    """Each routine of the libraries' modules and classes, by its full name."""
    with warnings.catch_warnings(action="ignore"):  # some of torch's objects warn when their class is read
        return dict(_members())


def _members():
    for name, module in sorted(sys.modules.items()):
        if module is None or name.partition(".")[0] not in LIBRARIES:
            continue
        for owner in [module, *(v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == name)]:
            prefix = owner.__qualname__ if inspect.isclass(owner) else ""
            for key, value in vars(owner).items():
                if inspect.isroutine(value) or isinstance(value, (classmethod, staticmethod, property)):
                    yield f"{name}.{prefix}.{key}", value


def objects():
    """Hydra's singletons, the Hydra that runs, its config loader, and the sources of its configs."""
    singletons = list(Singleton._instances.values())
    running = GlobalHydra.instance().hydra
    if running is None:
        return singletons
    return [*singletons, running, running.config_loader, *running.config_loader.get_sources()]


def changes():
    """The routines that were replaced, and the objects that got routines of their own or are no longer Hydra's."""
    now = members()
    found = [name for name, routine in BEFORE.items() if now.get(name) is not routine]
    for one in objects():
        kind = type(one)
        if kind.__module__.partition(".")[0] != "hydra":
            found.append(f"{kind.__module__}.{kind.__name__} in place of Hydra's")
        found += [f"{kind.__name__} object's {key}" for key, value in vars(one).items() if inspect.isroutine(value)]
    return found


def look(where):
    print(f"{where} changed {changes()}", file=sys.__stdout__)
    return "one"


BEFORE = members()
IS_1_3 = hydra.__version__.startswith("1.3.")
if IS_1_3:
    OmegaConf.register_new_resolver("look", look)
store = ConfigStore.instance().store
store(name="watchful", node={"defaults": [{"scale": "${look:composing}" if IS_1_3 else "one"}, "_self_"], "x": 0.0})
store(group="scale", name="one", node={"factor": 1.0})


VERSION_BASE = {"version_base": "1.3"} if IS_1_3 else {}  # reg_sweep is not imported here


@hydra.main(config_path=None, config_name="watchful", **VERSION_BASE)
def main(config: DictConfig) -> float:
    look("running")
    return float(config.x) ** 2


if __name__ == "__main__":
    main()
    look("ended")
