"""What a run's record is worth to who searches."""

from reg_sweep.runs.record import METRIC, RunRecord


def objective_value(name: str, record: RunRecord) -> float:
    """The objective of this name at the run's last epoch; the worst there is, of a run that diverged."""
    if record["status"] == "diverged":
        higher_is_better = name == "zero_share" or METRIC[name].higher_is_better
        return float("-inf") if higher_is_better else float("inf")
    weights = record["weights"]
    value = METRIC[name].of(record["last"]) if name in METRIC else weights and weights["n_zero"] / weights["n"]
    assert value is not None  # a run that was trained to its end has them all
    return value
