"""What came of a study's trials: as text, as study.json, and as an experiment file."""

import json
import math
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from reg_sweep.search.settings import ERROR, job_facts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def params_text(params: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def values_text(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)


def outcome_text(trial: "FrozenTrial") -> str:
    if trial.state.name == "PRUNED":
        return "pruned" if trial.last_step is None else f"pruned at step {trial.last_step}"
    if trial.state.name == "FAIL":
        return f"failed: {trial.user_attrs.get(ERROR, 'for an unknown reason')}"
    return values_text(trial.values)


def standing_text(finished: Sequence["FrozenTrial"], directions: list[str]) -> str:
    best = best_first(finished, directions)
    parts = [f"best {values_text(best[0].values)} (trial {best[0].number})"] if best and len(directions) == 1 else []
    for state, word in (("PRUNED", "pruned"), ("FAIL", "failed")):
        parts.append(f"{sum(t.state.name == state for t in finished)} {word}")
    return "".join(f", {p}" for p in parts)


def best_first(trials: Sequence["FrozenTrial"], directions: list[str]) -> list["FrozenTrial"]:
    """The completed trials, best first (of several objectives, by the first)."""
    sign = 1 if directions[0] == "minimize" else -1
    return sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: sign * t.values[0])


def table_text(trials: Sequence["FrozenTrial"]) -> str:
    names = sorted({name for t in trials for name in t.params})
    rows = [["trial", "value", *names]]
    for t in trials:
        params = (params_text({"": t.params[n]})[1:] if n in t.params else "" for n in names)
        rows.append([str(t.number), values_text(t.values), *params])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


TRIAL_WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def study_json(study: "optuna.Study", importances: Mapping[str, float], command: str | None = None) -> str:
    """A study as a file for those that have no Optuna: names, trials, what each reported. Infinity becomes null.

    A trial's directory is relative to the sweep's; its message is a failed trial's last line. `command` runs the best
    trial, or those of a Pareto front.
    """

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    trials = [
        {
            "number": t.number,
            "state": TRIAL_WORDS[t.state.name],
            "params": t.params,
            "values": None if t.values is None else list(map(finite, t.values)),
            "steps": [[step, finite(value)] for step, value in sorted(t.intermediate_values.items())],
            "directory": job_facts(t).get("directory"),
            "message": t.user_attrs.get(ERROR),
        }
        for t in study.get_trials(deepcopy=False)
    ]
    facts: dict[str, Any] = {
        "schema": 1,
        "study": study.study_name,
        "directions": [d.name.lower() for d in study.directions],
    }
    facts |= {"command": command, "importances": dict(importances), "trials": trials}
    return json.dumps(facts, indent=1, allow_nan=False) + "\n"


def missing_overrides(
    config: DictConfig,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    compose: Callable[[list[str]], DictConfig],
    ignored: Container[str],
) -> list[str]:
    """What `overrides` lack to compose `config`, because a file that they no longer name, such as a study's, set it.

    Groups that were chosen come first, then values. `compose` gives a config with its hydra node; `choices` are those
    of `config`. Keys and groups in `ignored` are left as they are.
    """
    part = compose(list(overrides))
    there = part.hydra.runtime.choices
    groups = [
        f"{'' if group in there else '+'}{group}={'null' if choice is None else choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in ignored and (group not in there or there[group] != choice)
    ]
    if groups:
        part = compose([*overrides, *groups])
    wanted, got = dict(leaves(config)), dict(leaves(part))
    values = [
        f"{'' if key in got else '+'}{key}={_written(value)}"
        for key, value in wanted.items()
        if key not in ignored and (key not in got or got[key] != value)
    ]
    return groups + values


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """An app's values by their dotted keys, as written: without the hydra node, interpolations unresolved."""
    task = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return walk(OmegaConf.to_container(task, resolve=False), "")


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return str(Override._get_value_element_as_str(value))


def user_folders(runtime: Any) -> list[str]:
    """The folders of config files that the command line named, by Hydra's `hydra.runtime`; absolute."""
    named = [s.path for s in runtime.config_sources if s.schema == "file" and "command-line" in s.provider]
    return [os.path.join(runtime.cwd, path) for path in named]


def search_path(runtime: Any, *more: str) -> list[str]:
    """The arguments that find the user's config folders, and more, from where the app was started.

    Hydra takes one --config-dir; the others are given as hydra.searchpath.
    """
    folders = [os.path.relpath(folder, runtime.cwd) for folder in (*user_folders(runtime), *more)]
    if not folders:
        return []
    first, *others = folders
    return ["--config-dir", first, *([file_search_path(others)] if others else [])]


def search_path_overrides(hydra: Any) -> list[str]:
    """The command line's own hydra.searchpath, which composing anew must not lose."""
    return [o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath=")]


def file_search_path(folders: Sequence[str]) -> str:
    """The override that lets Hydra look for config files in folders, too."""
    urls = [f"file://{folder}" for folder in folders]
    written = [url if re.fullmatch(r"[-\w./:]+", url) else _written(url) for url in urls]
    return f"hydra.searchpath=[{','.join(written)}]"


def experiment_yaml(overrides: Sequence[Override], group_exists: Callable[[str], bool]) -> str:
    """Overrides as an experiment file: chosen groups in its defaults list, values below."""
    defaults: list[Any] = []
    left_out: list[str] = []
    values = OmegaConf.create()
    for o in overrides:
        group = o.key_or_group if o.package is None else f"{o.key_or_group}@{o.package}"
        if not group_exists(o.key_or_group):
            if o.is_delete():
                left_out.append(str(o.input_line))
            else:
                OmegaConf.update(values, o.key_or_group, o.value(), force_add=True)
        elif o.key_or_group == "experiment":  # a neighbour of this file; its group is chosen already
            defaults.insert(0, o.value())
        else:
            defaults.append({f"/{group}" if o.is_add() else f"override /{group}": None if o.is_delete() else o.value()})
    text = "# @package _global_\n"
    text += "".join(f"# to be given on the command line: {line}\n" for line in left_out)
    if defaults:
        text += OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return text + (OmegaConf.to_yaml(values) if values else "")
