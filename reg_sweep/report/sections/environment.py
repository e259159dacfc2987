"""The environment of the runs, from device to commit, and the arms whose environment differs from the baseline's."""

from collections.abc import Iterable
from dataclasses import dataclass

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.results import Result

N_LISTED = 8
# Differences here can change the last digits of a score. A processor's name is only shown.
_WATCHED = ("device", "threads", "ranks", "population", "torch", "python", "numpy", "reg_sweep", "commit")
_COMMIT_DIGITS = 10


@dataclass(frozen=True)
class Deviation:
    """An arm whose environment differs from the baseline's: the facts that differ, as a tag and as a sentence."""

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
        """The deviations that fit on the page."""
        return self.deviations[:N_LISTED]

    @property
    def tags(self) -> dict[str, str]:
        """The tag of each deviating arm, by label."""
        return {d.label: d.tag for d in self.deviations}


def environment_section(comparison: Comparison) -> EnvironmentSection | None:
    """The environments that the complete runs recorded; None where none recorded any."""
    names = dict.fromkeys(name for arm in comparison.measured for r in arm.replicates for name in r.environment)
    if not names:
        return None
    runs = [r for arm in comparison.measured for r in arm.replicates]
    facts = [(name, ", ".join(_values(name, runs))) for name in names]
    base = comparison.baseline
    deviations = [d for arm in comparison.measured if base is not None and (d := _deviation(arm, base)) is not None]
    return EnvironmentSection(facts, deviations)


def warning(section: EnvironmentSection | None) -> str:
    """A warning beside the verdict where arms ran in different environments; empty if all ran alike."""
    if section is None or not section.deviations:
        return ""
    labels = [d.label for d in section.deviations]
    named = listed(labels, 3)
    differing = dict.fromkeys(part for d in section.deviations for part in d.tag.removeprefix("other ").split(", "))
    differ = "differs" if len(labels) == 1 else "differ"
    return (
        f"Different environments: {named} {differ} from the baseline in {listed(list(differing))}. "
        "The environment, not the settings, may explain their difference; see Environment."
    )


def _deviation(arm: Arm, base: Arm) -> Deviation | None:
    """How the arm's environment differs from the baseline's: on the seeds in common, or overall if there are none."""
    ours, theirs = ({r.seed: r for r in a.replicates} for a in (arm, base))
    common = [seed for seed in ours if seed in theirs]
    pairs = [([ours[s]], [theirs[s]]) for s in common] or [(arm.replicates, base.replicates)]
    differing: dict[str, tuple[set[str], set[str]]] = {}
    for name in _WATCHED:
        values = [(_values(name, a), _values(name, b)) for a, b in pairs]
        unlike = [(a, b) for a, b in values if a != b]
        if unlike:
            differing[name] = {v for a, _ in unlike for v in a}, {v for _, b in unlike for v in b}
    if not differing:
        return None
    parts = (f"{name} {_listed(a)} (baseline {_listed(b)})" for name, (a, b) in differing.items())
    return Deviation(arm.label, f"other {', '.join(differing)}", "; ".join(parts))


def _values(name: str, runs: Iterable[Result]) -> list[str]:
    """The distinct values in these runs' records, sorted."""
    found = {r.environment[name] for r in runs if name in r.environment}
    return sorted(_short(value) if name == "commit" else value for value in found)


def _short(commit: str) -> str:
    digits, mark, rest = commit.partition("-")
    return digits[:_COMMIT_DIGITS] + mark + rest


def _listed(values: set[str]) -> str:
    return " and ".join(sorted(values)) or "not recorded"
