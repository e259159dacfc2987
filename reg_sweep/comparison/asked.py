"""The question that the reader asks of every table, and where it differs from a study's design."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reg_sweep.comparison.results import EPOCHS, TEST_METRICS, WEIGHT_METRICS, Epoch, is_of_weights
from reg_sweep.runs.record import METRIC, Metric
from reg_sweep.runs.study import Design
from reg_sweep.stats.family import Question
from reg_sweep.stats.moderation import Pairing, Variance

MARGIN_OF_ACCURACY = 0.001
VARIANCES, QUESTIONS, PAIRINGS = (get_args(kind) for kind in (Variance, Question, Pairing))
ERRORS = ("table", "all")


class QuestionError(ValueError):
    """A question that can't be asked. The message is one line: the option, the rule, the value."""


@dataclass(frozen=True)
class Asked:
    """The reader's question, asked of every table. None: as the study fixed it beforehand, or else the default.

    Attributes:
        margin: the largest difference that does not matter, in the metric's unit; 0.001 by default for accuracies.
        metric: of the test images, or of the final weights (`WEIGHT_METRICS`), which makes a table exploratory.
        baseline: an arm's label or settings.
        error: 'table': each table has an error of 5%; 'all': all tables of the page share one.
    """

    metric: Metric | None = None
    epoch: Epoch | None = None
    margin: float | None = None
    variance: Variance | None = None
    question: Question | None = None
    pairing: Pairing | None = None
    baseline: str | None = None
    error: Literal["table", "all"] = "table"

    def margin_of(self, metric: Metric) -> float | None:
        """The margin of a table that is judged by this metric."""
        if is_of_weights(metric) and self.margin is None:
            return None
        usual = {"share": MARGIN_OF_ACCURACY, "percent": 100 * MARGIN_OF_ACCURACY}.get(metric.unit)
        return usual if self.margin is None else self.margin

    def differs_from(self, design: Design) -> str:
        """Where the question differs from the design, in words; empty where it does not."""
        asked = {
            "metric": (None if self.metric is None else self.metric.name, design.metric),
            "epoch": (self.epoch, "last"),
            "margin": (self.margin, design.margin),
            "variance": (self.variance, design.variance),
            "question": (self.question, design.question),
            "pairing": (self.pairing, design.pairing),
        }
        return ", ".join(f"{k} {v} instead of {fixed}" for k, (v, fixed) in asked.items() if v not in (None, fixed))


def asked_for(
    metric: str | None,
    epoch: str | None,
    margin: float | None,
    variance: str | None,
    question: str | None,
    pairing: str | None,
    baseline: str | None,
    error: str,
    unit: str | None = "share",
) -> dict[str, Any]:
    """The fields of `Asked`, from the report's options; `unit` is that of the metric that judges by default.

    No unit: the score is not known before the runs are read, so that only a margin that no score has is refused.

    Raises:
        QuestionError: one is unknown, or out of its range.
    """
    for option, known, value in (
        ("--metric", (*(m.name for m in TEST_METRICS), *WEIGHT_METRICS), metric),
        ("--epoch", EPOCHS, epoch),
        ("--variance", VARIANCES, variance),
        ("--question", QUESTIONS, question),
        ("--pairing", PAIRINGS, pairing),
        ("--error", ERRORS, error),
    ):
        if value is not None and value not in known:
            raise QuestionError(f"{option} must be one of {', '.join(known)}, got {value!r}")
    judged_by = None if metric is None else (METRIC | WEIGHT_METRICS)[metric]
    if metric in WEIGHT_METRICS and epoch == "best_val":
        raise QuestionError(
            f"--epoch must be last with --metric {metric}, got best_val: only final weights are counted"
        )
    unit = unit if judged_by is None else judged_by.unit
    is_share, largest = unit in ("share", None), {"share": 1, None: 1, "percent": 100}.get(unit)
    if margin is not None and not 0 < margin < (math.inf if unit is None else largest or math.inf):
        rule = f"above 0 and below {largest}" if largest else "a finite number above 0"
        small = f"name a difference in {metric or 'the score'} that is small"
        small = "0.001 is 0.1 points of accuracy" if is_share else small
        raise QuestionError(f"--margin must be {rule}, got {margin}: {small}")
    if question in ("equivalent", "not_worse") and margin is None and largest is None:
        score = "this score" if metric is None else f"--metric {metric}"
        raise QuestionError(f"--margin must be given with --question {question} and {score}, got none")
    asked = {"metric": judged_by, "epoch": epoch, "margin": margin, "variance": variance, "question": question}
    return asked | {"pairing": pairing, "baseline": baseline, "error": error}
