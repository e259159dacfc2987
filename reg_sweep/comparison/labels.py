"""Labels of arms and their data: no longer than needed to distinguish them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from reg_sweep.config.digest import comparable
from reg_sweep.runs.ranking import lambda_text

_DATA_KEYS = ("n_train", "label_noise", "n_test", "n_val", "fingerprint")
# Settings that only one choice of their group has: None means that another choice was made, not that the value differs.
GROUPS_WITH_OWN_SETTINGS = ("norm.", "optimizer.", "schedule.", "model.")
# A regularizer that is off has no keys. One that is on is named, and its settings are added only where the arms that
# have it differ.
_REGULARIZERS = ("mix.", "averaging.", "l1_schedule.", "l2_schedule.", "penalties.")

NORM_WORDS = {
    "bn": "batch norm",
    "gbn": "ghost batch norm",
    "gn": "group norm",
    "ln": "layer norm",
    "in": "instance norm",
    "none": "no norm",
}


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that affect a run's result, as dotted keys and plain values, without the seed.

    Another program's settings are flat from the start.
    """
    if not has_schema(config):
        return config
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                visit(f"{prefix}.{k}" if prefix else str(k), v)
        else:
            flat[prefix] = value

    visit("", comparable(config))
    flat.pop("seed", None)
    return flat


def has_schema(config: dict[str, Any]) -> bool:
    """Whether a config is of this project's trainer, with norm, penalty and images."""
    return all(isinstance(config.get(group), dict) for group in ("norm", "penalty", "data", "runtime"))


def norm_text(name: object) -> str:
    """A norm's name; 'no norm' for none."""
    return "no norm" if name == "none" else str(name)


def data_labels(data: list[dict[str, Any]]) -> list[str]:
    """A short, unique name for each table's data: the data set's name, then what differs between its tables.

    Each is a dict of name, n_train, label_noise, n_test, n_val and fingerprint.
    """
    # n_val and the fingerprint mostly follow from the others, so they are named only where the others do not suffice.
    for keys in (_DATA_KEYS[:3], _DATA_KEYS[:4], _DATA_KEYS):
        labels = []
        for d in data:
            same = [other for other in data if other["name"] == d["name"]]
            differing = [k for k in keys if any(other[k] != d[k] for other in same)]
            labels.append(", ".join([d["name"], *(_data_part(k, d[k]) for k in differing)]))
        if len(set(labels)) == len(labels):
            break
    return labels


def _data_part(key: str, value: Any) -> str:
    if key == "label_noise":
        return f"label noise {100 * value:g}%" if value else "no label noise"
    if key == "fingerprint":
        return f"fingerprint {value}"
    counted = {"n_train": "train", "n_val": "val", "n_test": "test"}[key]
    return f"{counted} images not counted" if value is None else f"{value:,} {counted} images"


def arm_labels(configs: list[dict[str, Any]]) -> list[str]:
    """A short, unique name for each arm: norm, l1, l2, then the other settings that differ among these arms.

    For another program's runs: all settings that differ; a text value is shown without its name where that suffices.

    Numbers get as many digits as needed to distinguish them. A setting that an arm's config lacks, such as another
    model's, is named only where nothing else distinguishes two arms.
    """
    flat = [flatten(config) for config in configs]
    if not all(map(has_schema, configs)):
        return _foreign_labels(flat)
    best: list[str] = []
    for says_absent, is_exact, digits in product((False, True), (False, True), (3, 6, 17)):
        labels = _labels(flat, digits, is_exact=is_exact, says_absent=says_absent)
        if len(set(labels)) > len(set(best)):
            best = labels
        if len(set(best)) == len(flat):
            break
    return best


def _labels(flat: list[dict[str, Any]], digits: int, *, is_exact: bool, says_absent: bool) -> list[str]:
    keys = [k for k in dict.fromkeys(k for f in flat for k in f) if k not in ("norm.name", "l1", "l2")]
    own = [k for k in keys if k.startswith("penalties.") and k.endswith(".strength") and k.count(".") == 2]
    keys = [k for k in keys if k not in own]
    differing = [k for k in keys if _differs(k, flat)]
    lasts = Counter(k.rpartition(".")[2] for k in differing)
    names = {k: _short(k, lasts[k.rpartition(".")[2]] > 1) for k in differing}
    labels = []
    for f in flat:
        parts = [norm_text(f["norm.name"])]
        parts += [f"{k.upper()} {lambda_text(f[k], digits)}" for k in ("l1", "l2") if f[k] != 0]
        parts += [f"{k.split('.')[1]} {lambda_text(f[k], digits)}" for k in own if _is_strength(f.get(k))]
        for k, name in names.items():
            if k not in f and not says_absent:
                continue
            if f.get(k) is not None and k in ("mix.name", "averaging.name"):
                parts.append(str(f[k]))
            elif f.get(k) is not None or not k.startswith((*GROUPS_WITH_OWN_SETTINGS, *_REGULARIZERS)):
                parts.append(f"{name} {_shown(f.get(k), is_exact=is_exact)}")
        labels.append(" · ".join(parts))
    return labels


def _foreign_labels(flat: list[dict[str, Any]]) -> list[str]:
    differing = [k for k in dict.fromkeys(k for f in flat for k in f) if len({repr(f.get(k)) for f in flat}) > 1]
    nothing = ", ".join(f"no {_short(k, is_ambiguous=False)}" for k in differing) or "all runs"
    labels: list[str] = []
    for digits, is_named in ((4, False), (4, True), (17, True)):
        labels = [" · ".join(_foreign_parts(f, differing, digits, is_named)) or nothing for f in flat]
        if len(set(labels)) == len(labels):
            break
    seen: Counter[str] = Counter()
    for i, label in enumerate(labels):
        seen[label] += 1
        labels[i] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return labels


def _foreign_parts(f: dict[str, Any], keys: list[str], digits: int, is_named: bool) -> list[str]:
    parts = []
    for key in keys:
        value, name = f.get(key), _short(key, is_ambiguous=is_named)
        if isinstance(value, bool):
            parts.append(f"{name} {'on' if value else 'off'}")
        elif isinstance(value, int | float):
            parts.append(f"{name} {lambda_text(value, digits) if isinstance(value, float) else value}")
        elif value is not None or is_named:
            parts.append(f"{name} {value}" if is_named else str(value))
    return parts


def _differs(key: str, flat: list[dict[str, Any]]) -> bool:
    values = {repr(f.get(key)) for f in flat}
    if key.startswith(GROUPS_WITH_OWN_SETTINGS) or (key.startswith(_REGULARIZERS) and not key.endswith(".name")):
        values.discard("None")
    return len(values) > 1


def _is_strength(value: Any) -> bool:
    return isinstance(value, int | float) and value != 0


def _short(key: str, is_ambiguous: bool) -> str:
    group, _, last = key.rpartition(".")
    if last in ("name", "_target_"):
        return group.removesuffix(".source").replace("_", " ")
    return (key if is_ambiguous else last).replace("_", " ")


def _shown(value: Any, *, is_exact: bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return repr(value) if is_exact else f"{value:g}"
    return value.rpartition(".")[2] if isinstance(value, str) else "none" if value is None else str(value)


# ---- words in a sentence


def listed(parts: Sequence[str], most: int | None = None) -> str:
    """'a', 'a and b', 'a, b and c'; of more than `most` parts 'a, b, c and 1,234 more'."""
    if most is not None and len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most:,} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


def spelled(n: int) -> str:
    """A number in words, capitalized to begin a sentence ('Five'); in digits above twelve."""
    return _NUMBERS[n] if n < len(_NUMBERS) else f"{n:,}"


# ---- what a filter finds


def filter_words(config: dict[str, Any], held: Mapping[str, Any]) -> str:
    """'norm=gbn l1=0.001 l2=0 optimizer.lr=0.1 lr=0.1': the words that a filter matches: the arm's own settings."""
    found = dict(own_words(config))
    for key, value in flatten(config).items():
        if key not in held and value is not None:
            found |= {key: value, key.removesuffix(".name").rpartition(".")[2]: value}
    return typed(found)


def own_words(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that every arm of this project has, by their names on the command line."""
    if not has_schema(config):
        return {}
    return {
        "norm": config["norm"]["name"],
        "l1": config["l1"],
        "l2": config["l2"],
        "penalty": config["penalty"]["name"],
    }


def typed(settings: Mapping[str, Any]) -> str:
    """'norm=gbn l1=0.001'."""
    return " ".join(f"{key}={value}".replace(" ", "") for key, value in settings.items())
