"""A sequential study's verdict on the terminal: a line for each arm, what it cost, and how to go on."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.runs.ranking import is_share
from reg_sweep.runs.study import ArmLookJson, DesignJson, LookJson
from reg_sweep.search.console import columns_text, params_text, points_texts
from reg_sweep.search.parameter import split_params
from reg_sweep.stats.verdict import Verdict

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Params = dict[str, Any]


def verdict_table(design: DesignJson, looks: Sequence[LookJson]) -> str:
    """A line for each arm: its seeds, its difference to the baseline with the interval, and the verdict.

    The interval belongs to the verdict, and is simultaneous over all arms and interim analyses: for an arm that is
    shown equivalent that of `Family.equivalence_interval`, which lies within the margin.
    """
    from reg_sweep.stats.family import one_sided_share

    is_own = design["variance"] == "plain" or len(design["arms"]) == 1
    one_sided = design["alpha"] * one_sided_share(is_own, design.get("question", "better"))
    level = f"{100 * (1 - design['alpha']):g}% interval ({100 * (1 - 2 * one_sided):g}% if equivalent)"
    rows = [["arm", "seeds", "difference", level, "verdict"]]
    for params, text in zip(design["arms"], points_texts(design["arms"]), strict=True):
        seeds, arm = last_look(params, looks)
        if arm is None:
            rows.append([text, "", "", "", "not analysed yet"])
            continue
        lost = [f"{n} of {seeds} {word}" for n, word in ((arm["n_diverged"], "diverged"), (arm["n_failed"], "failed"))]
        word = Verdict.of(arm["decision"]).at_the_end(design.get("question", "better"), has_lost=arm["n_seeds"] < seeds)
        is_given_up = arm["decision"] == Verdict.UNDECIDED and seeds < looks[-1]["seeds"]
        said = ", ".join([word, *["given up"] * is_given_up, *(text for text in lost if not text.startswith("0 "))])
        rows.append([text, str(seeds), *difference_text(arm, design["metric"]), said])
    return columns_text(rows)


def last_look(params: Mapping[str, Any], looks: Sequence[LookJson]) -> tuple[int, ArmLookJson | None]:
    """An arm's last interim analysis: its seeds and its finding; 0 and None if there was none."""
    for look in reversed(looks):
        for arm in look["arms"]:
            if arm["params"] == params:
                return look["seeds"], arm
    return 0, None


def difference_text(arm: ArmLookJson, metric: str) -> tuple[str, str]:
    """'+0.12 points' and '-0.04 to +0.28' of a share, '+0.0012' of another metric; a dash where they are unknown.

    An interval of shares is cut at 100 points, which no two can differ by more than.
    """
    reach = 1.0 if is_share(metric) else math.inf
    ends = (None if v is None else min(max(v, -reach), reach) for v in (arm["ci_low"], arm["ci_high"]))
    numbers = (arm["estimate"], *ends)
    estimate, low, high = (None if v is None else _signed(v, metric) for v in numbers)
    unit = " points" if is_share(metric) else ""
    return f"{estimate}{unit}" if estimate else "-", "-" if low is None or high is None else f"{low} to {high}"


def _signed(value: float, metric: str) -> str:
    text = f"{100 * value:+.2f}" if is_share(metric) else f"{value:+.4g}"
    return text if float(text) else text[1:]


def lost_pairs(design: DesignJson, trials: "Sequence[FrozenTrial]") -> list[str]:
    """Warnings about seeds that can't be compared, because the baseline failed or diverged on them."""
    params = {t.number: split_params(t.params, t.user_attrs) for t in trials}
    baseline = [t for t in trials if design["baseline"].items() <= params[t.number].items()]
    failed = sum(t.state.name in ("FAIL", "PRUNED") for t in baseline)
    diverged = sum(t.state.name == "COMPLETE" and not math.isfinite(t.value or 0.0) for t in baseline)
    counts = ((failed, "failed"), (diverged, "diverged"))
    return [f"the baseline {word} on {n} of {len(baseline)} seeds, which compare nothing" for n, word in counts if n]


def effort_text(design: DesignJson, trials: "Sequence[FrozenTrial]") -> str:
    """The number of runs, and that of those which the interim analyses saved."""
    n, whole = sum(t.state.is_finished() for t in trials), design["max_seeds"] * (1 + len(design["arms"]))
    return f"{n} runs; {design['max_seeds']} seeds of every arm would have been {whole}: {max(whole - n, 0)} saved"


def go_on_text(design: DesignJson, undecided: Sequence[Params], command: str) -> str:
    """How undecided arms get more seeds: by the command, or by another study where all of the error is spent."""
    arms = "; ".join(map(params_text, undecided))
    if "spending" not in design:
        return f"more seeds for {arms}:\n{command}"
    fresh = design["first_seed"] + design["max_seeds"]
    return (
        f"all of the error is spent: more seeds for {arms} need a study of their own, in another folder (name=), with"
        f" hydra.sweeper.first_seed={fresh}"
    )
