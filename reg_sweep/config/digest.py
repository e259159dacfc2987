"""The digest of a run's settings: the same for two configs if, and only if, they describe the same run."""

import hashlib
import json
from typing import Any

from reg_sweep.config.regularizers import without_unused

# Settings that may differ between two starts of one run, because they don't change its weights.
_NOT_IN_DIGEST = {"name", "objective", "objective_at", "keep", "report", "test_epochs", "callbacks"}
_NOT_IN_DATA_DIGEST = {"root", "offline_sample"}
# Left out at their defaults: digests of older versions do not contain these settings.
_UNUSED_TRANSFORMS = [("flip", 0), ("crop", 0), ("transforms", [])]
_UNUSED_GROUPS = [("l1_on", "weights"), ("channel_weight", None)]
_NOT_IN_RUNTIME_DIGEST = {"device", "threads"}


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config (as a dict) that affects the trained weights, without names, folders and devices."""
    kept = without_unused({k: v for k, v in config.items() if k not in _NOT_IN_DIGEST})
    kept["data"] = {
        k: v for k, v in config["data"].items() if k not in _NOT_IN_DATA_DIGEST and (k, v) not in _UNUSED_TRANSFORMS
    }
    kept["penalty"] = {k: v for k, v in config["penalty"].items() if (k, v) not in _UNUSED_GROUPS}
    kept["runtime"] = {k: v for k, v in recorded_runtime(config).items() if k not in _NOT_IN_RUNTIME_DIGEST}
    kept |= {group: _without_unset_sources(kept[group]) for group in ("optimizer", "schedule") if group in kept}
    return kept


def _without_unset_sources(group: Any) -> Any:
    """An optimizer's or schedule's settings without unset sources, which older versions' digests do not contain."""
    if not isinstance(group, dict):  # another program's record may have anything here
        return group
    return {k: v for k, v in group.items() if v is not None or k not in ("source", "interval")}


def recorded_runtime(config: dict[str, Any]) -> dict[str, Any]:
    """A config's `runtime` without ranks=1: older records lack the key `ranks`, and their runs had one rank."""
    return {k: v for k, v in config["runtime"].items() if (k, v) != ("ranks", 1)}


def digest(config: dict[str, Any]) -> str:
    """16 hexadecimal digits, the same for two configs (as dicts) if, and only if, they describe the same run."""
    text = json.dumps(_without_points(comparable(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_points(value: Any) -> Any:
    """Converts whole floats to integers: 7 and 7.0 are the same setting."""
    if isinstance(value, dict):
        return {k: _without_points(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_points(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def arm_digest(config: dict[str, Any]) -> str:
    """Like `digest`, without the seed: replicates of one arm share it."""
    return digest({**config, "seed": None})
