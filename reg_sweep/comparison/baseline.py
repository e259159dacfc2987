"""The arm that all others are compared with: named by the reader, else the plainest; never chosen by a result."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.labels import flatten, has_schema
from reg_sweep.config.regularizers import penalty_strengths, without_unused


class ArmError(ValueError):
    """A baseline that matches no arm, or several. The message is one line that lists the arms."""


_PLAIN_WORDS = (
    "baseline",
    "base",
    "none",
    "no",
    "off",
    "control",
    "vanilla",
    "default",
    "original",
    "reference",
    "plain",
)
_BASELINE_NORMS = ("bn", "none", "gbn", "gn", "ln", "in")
_N_PLAIN = 2  # of them: how common they are doesn't matter


def default_baseline(arms: Sequence[Arm]) -> Arm | None:
    """The arm without penalties; failing that, the one with the weakest.

    Of several, one with bn comes first, then one without a norm, then one of the commonest norm.

    Of those again, the one without label smoothing, own losses, mixed images and averaged weights comes first.

    Of another program's arms: the one with the most settings that say baseline, none or off, or are 0; then the first.
    Only arms with a complete run qualify; None if there are none. No result enters the choice: ties are broken by a
    fixed order.
    """
    if arms and not has_schema(arms[0].config):
        return max((arm for arm in arms if arm.replicates), key=_plainness, default=None)
    norms = Counter(arm.config["norm"]["name"] for arm in arms)

    def rank(arm: Arm) -> tuple[float, int, int, int, int, int, str]:
        norm = arm.config["norm"]["name"]
        order = _BASELINE_NORMS.index(norm) if norm in _BASELINE_NORMS else len(_BASELINE_NORMS)
        plainest = min(order, _N_PLAIN)
        return *strength(arm.config), plainest, -norms[norm], order, -arm.n_by_status.total(), arm.label

    return min((arm for arm in arms if arm.replicates), key=rank, default=None)


def _plainness(arm: Arm) -> tuple[int, int]:
    """The number of settings that say baseline, and of those that switch something off."""
    values = arm.config.values()
    n_words = sum(isinstance(v, str) and v.strip().lower() in _PLAIN_WORDS for v in values)
    return n_words, sum(v is None or (isinstance(v, bool | int | float) and v == 0) for v in values)


def strength(config: dict[str, Any]) -> tuple[float, int]:
    """The sum of an arm's strengths of penalties, and how many other regularizers of the training are on."""
    kept = without_unused(config)
    return sum(penalty_strengths(config).values()), sum(group in kept for group in ("loss", "mix", "averaging"))


def named_baseline(arms: Sequence[Arm], wanted: str) -> Arm | None:
    """The arm with a complete run that `wanted` names: by its label, or by settings such as `norm=bn,l1=0,l2=0`.

    Raises:
        ArmError: several arms have these settings.
    """
    measured = [arm for arm in arms if arm.replicates]
    named = [arm for arm in measured if _squeeze(arm.label) == _squeeze(wanted)]
    if not named and "=" in wanted:
        settings = dict(part.split("=", 1) for part in wanted.split(",") if "=" in part)
        named = [arm for arm in measured if _has_settings(flatten(arm.config), settings)]
    if len(named) > 1:
        raise ArmError(
            f"--baseline must name one arm, got {wanted!r}, which {len(named)} have: "
            f"use one of {quoted(arm.label for arm in named)}"
        )
    return named[0] if named else None


def quoted(labels: Iterable[str]) -> str:
    """Labels as they are typed after --baseline, each of them once."""
    return ", ".join(map(shlex.quote, dict.fromkeys(labels)))


def _squeeze(label: str) -> str:
    return "".join(label.lower().replace("·", " ").split())


def _has_settings(flat: dict[str, Any], settings: dict[str, str]) -> bool:
    for key, wanted in settings.items():
        key, wanted = key.strip(), wanted.strip()
        value = flat.get(key, flat.get(f"{key}.name"))
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if float(wanted) != value:
                    return False
            except ValueError:
                return False
        elif str(value).lower() != wanted.lower():
            return False
    return True
