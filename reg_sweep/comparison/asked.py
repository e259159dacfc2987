"""The question that the reader asks of every table, and what of it a study's design had not asked."""

from dataclasses import dataclass
from typing import Literal

from reg_sweep.comparison.results import Epoch
from reg_sweep.runs.record import Metric
from reg_sweep.runs.study import Design
from reg_sweep.stats.family import Question
from reg_sweep.stats.moderation import Pairing, Variance

MARGIN_OF_ACCURACY = 0.001


@dataclass(frozen=True)
class Asked:
    """What the reader asks of every table. None: what the study fixed beforehand; else the usual.

    Attributes:
        margin: the largest difference that does not matter, in the metric's unit; of accuracies 0.001 is usual.
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
        usual = MARGIN_OF_ACCURACY if metric.unit == "share" else None
        return usual if self.margin is None else self.margin

    def differs_from(self, design: Design) -> str:
        """What of the question the design did not ask, in words; empty where it asked all of it."""
        asked = {
            "metric": (None if self.metric is None else self.metric.name, design.metric),
            "epoch": (self.epoch, "last"),
            "margin": (self.margin, design.margin),
            "variance": (self.variance, design.variance),
            "question": (self.question, design.question),
            "pairing": (self.pairing, design.pairing),
        }
        return ", ".join(f"{k} {v} instead of {fixed}" for k, (v, fixed) in asked.items() if v not in (None, fixed))
