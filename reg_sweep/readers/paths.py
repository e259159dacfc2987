"""Settings that a run's path names: `ppo/lr=0.1/seed_3/progress.csv`."""

import re
from pathlib import PurePath
from typing import Any

from reg_sweep.readers.run import plain, text

_SEED = re.compile(
    r"(?:^|[_\-. ,])(?:seed|rng|random_seed)[_=\- ]?(\d{1,18})(?=$|[_\-. ,])|^s(\d{1,10})$", re.IGNORECASE
)
_ASSIGNED = re.compile(r"(?:^|[,;_])([A-Za-z][\w./-]*?)=([^,;=]*)(?=$|[,;]|_[A-Za-z][\w.]*=)")
_SAYS_NOTHING = re.compile(
    r"[\d\-_.:T]+|(?:offline-)?run-\d.*|version_\d+|events\.out.*|checkpoint-\d+|lightning_logs|multiruns?|runs?|logs?|"
    r"outputs?|results?|metrics|progress|history|training_log|log|train|eval|csv|tb|tensorboard|wandb|data|files|events|trainer_state|hparams|scores",
    re.IGNORECASE,
)


def path_settings(path: PurePath) -> dict[str, Any]:
    """The settings in a path below its root: `key=value`, a seed, and what else the names of its folders say."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    parts = [*path.parent.parts, path.stem if path.suffix else path.name]
    for part in parts:
        said = part
        for key, value in _ASSIGNED.findall(part):
            found[text(key)] = plain(_typed(value))
            said = said.replace(f"{key}={value}", "")
        match = _SEED.search(said)
        if match is not None and "seed" not in found:
            found["seed"] = int(match[1] or match[2])
            said = said.replace(match[0], "")
        said = said.strip("_-. ,;")
        if said and not _SAYS_NOTHING.fullmatch(said):
            rest.append(said)
    if rest:
        found["folder"] = text("/".join(rest))
    return found


def _typed(value: str) -> Any:
    try:
        return float(value) if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value, re.IGNORECASE) else value
    except ValueError:
        return value
