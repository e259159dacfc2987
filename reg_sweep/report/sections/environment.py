"""By what the runs were computed, from device to commit; and which arms differ in it from the baseline."""

from collections.abc import Iterable
from dataclasses import dataclass

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.results import Result

N_LISTED = 8
# Differences here can change the last digits of a score. A processor's name is only shown.
_WATCHED = ("device", "threads", "ranks", "torch", "python", "numpy", "reg_sweep", "commit")
_COMMIT_DIGITS = 10


@dataclass(frozen=True)
class Deviation:
    """An arm that was computed otherwise than the baseline: in what, as a tag, and how, in a sentence."""

    label: str
    tag: str
    text: str


@dataclass(frozen=True)
class EnvironmentSection:
    """facts: by name, what all runs share or the values that they have. deviations: the arms that differ."""

    facts: list[tuple[str, str]]
    deviations: list[Deviation]

    @property
    def listed(self) -> list[Deviation]:
        """Those that the page has room for."""
        return self.deviations[:N_LISTED]

    @property
    def tags(self) -> dict[str, str]:
        """By the arm's label, what it differs in."""
        return {d.label: d.tag for d in self.deviations}


def environment_section(comparison: Comparison) -> EnvironmentSection | None:
    """The environments that the complete runs recorded; None where none recorded any."""
    names = dict.fromkeys(name for arm in comparison.measured for r in arm.replicates for name in r.environment)
    if not names:
        return None
    runs = [r for arm in comparison.measured for r in arm.replicates]
    facts = [(name, ", ".join(_told(name, runs))) for name in names]
    base = comparison.baseline
    deviations = [d for arm in comparison.measured if base is not None and (d := _deviation(arm, base)) is not None]
    return EnvironmentSection(facts, deviations)


def warning(section: EnvironmentSection | None) -> str:
    """A warning beside the verdict where arms ran in different environments; empty if all ran alike."""
    if section is None or not section.deviations:
        return ""
    labels = [d.label for d in section.deviations]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    told = dict.fromkeys(part for d in section.deviations for part in d.tag.removeprefix("other ").split(", "))
    return (
        f"Not computed alike: {', '.join(labels[:3])}{more} differ from the baseline in {', '.join(told)}. "
        "The difference may be of these, not of the arms; see What computed them."
    )


def _deviation(arm: Arm, base: Arm) -> Deviation | None:
    """In what the arm's runs differ from the baseline's: on the seeds that pair them, or at all where none does."""
    ours, theirs = ({r.seed: r for r in a.replicates} for a in (arm, base))
    common = [seed for seed in ours if seed in theirs]
    pairs = [([ours[s]], [theirs[s]]) for s in common] or [(arm.replicates, base.replicates)]
    differing: dict[str, tuple[set[str], set[str]]] = {}
    for name in _WATCHED:
        told = [(_told(name, a), _told(name, b)) for a, b in pairs]
        unlike = [(a, b) for a, b in told if a != b]
        if unlike:
            differing[name] = {v for a, _ in unlike for v in a}, {v for _, b in unlike for v in b}
    if not differing:
        return None
    parts = (f"{name} {_listed(a)} (baseline {_listed(b)})" for name, (a, b) in differing.items())
    return Deviation(arm.label, f"other {', '.join(differing)}", "; ".join(parts))


def _told(name: str, runs: Iterable[Result]) -> list[str]:
    """The values that these runs have, sorted; what a record does not tell is left out."""
    found = {r.environment[name] for r in runs if name in r.environment}
    return sorted(_short(value) if name == "commit" else value for value in found)


def _short(commit: str) -> str:
    digits, mark, rest = commit.partition("-")
    return digits[:_COMMIT_DIGITS] + mark + rest


def _listed(values: set[str]) -> str:
    return " and ".join(sorted(values)) or "not told"
