"""Arms in an order of preference: a study ends with the first that is shown not worse, such as the smallest network.

Testing in an order spends no error by itself, but an end at the first success does not save any either: each arm that
was tried before it had its chance of a false one. So the error is split over all arms, as in any study, and this rule
only stops training. It never adds a claim, so the error rate stays what it was.
"""

from collections.abc import Sequence
from typing import Any

from reg_sweep.runs.study import LookJson
from reg_sweep.search.settings import StudyError
from reg_sweep.stats.verdict import Verdict

N_LOOKS = 2  # before an arm may be given up: three seeds say too little


def check_in_order(is_in_order: bool, question: str) -> None:
    """Raises StudyError where a study in order asks another question than whether an arm is not worse."""
    if is_in_order and question != "not_worse":
        raise StudyError(
            f"hydra.sweeper.design.in_order ends with the first arm that is not worse, got question {question}:"
            " add hydra.sweeper.design.question=not_worse"
        )


def given_up(arms: Sequence[dict[str, Any]], looks: Sequence[LookJson], loss: float) -> list[dict[str, Any]]:
    """The arms that a study in order trains no more, though no look decided them.

    An arm is given up once an arm before it is shown not worse; or where, at its second look or a later one, its mean
    difference to the baseline is beyond the margin: it would have to turn around first.

    Args:
        arms: in the order of preference.
        looks: the interim analyses so far.
        loss: the margin as a difference for the worse, -margin where higher is better.
    """
    closed: list[dict[str, Any]] = []
    is_found = False
    for params in arms:
        path = [arm for look in looks for arm in look["arms"] if arm["params"] == params]
        is_decided = bool(path) and path[-1]["decision"] != Verdict.UNDECIDED
        at = [arm["estimate"] for arm in path[N_LOOKS - 1 :]]
        is_beyond = any(d is not None and (d < loss if loss < 0 else d > loss) for d in at)
        if not is_decided and (is_found or is_beyond):
            closed.append(params)
        is_found = is_found or (is_decided and Verdict.of(path[-1]["decision"]).is_no_loss)
    return closed
