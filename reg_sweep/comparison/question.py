"""The question that a table answers: what the reader asks for, and the arm that all others are compared with.

The baseline is named by the reader, else it is the plainest arm; it is never chosen by a result.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.labels import flatten, has_schema
from reg_sweep.comparison.results import EPOCHS, TEST_METRICS, WEIGHT_METRICS, Epoch, is_of_weights
from reg_sweep.config.regularizers import penalty_strengths, without_unused
from reg_sweep.runs.record import METRIC, Metric
from reg_sweep.runs.study import StudyDesign
from reg_sweep.stats.family import Question
from reg_sweep.stats.moderation import Pairing, Variance

MARGIN_OF_ACCURACY = 0.001
VARIANCES, QUESTIONS, PAIRINGS = (get_args(kind) for kind in (Variance, Question, Pairing))
ERRORS = ("table", "all")
# Values by which other programs' settings mark a baseline.
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
_N_PLAIN = 2  # the first so many norms come first even if others are more common
N_QUOTED = 20  # arms listed in an error


class QuestionError(ValueError):
    """A question that can't be asked. The message is one line: the option, the rule, the value."""


class ArmError(ValueError):
    """A baseline that matches no arm, or several. The message is one line that lists the arms."""


@dataclass(frozen=True)
class Asked:
    """The reader's question, asked of every table. A field of None stands for the study's value, else the default.

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

    def differs_from(self, design: StudyDesign) -> str:
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

    Without a unit, the score is unknown until the runs are read: only a margin that fits no score is refused.

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


def default_baseline(arms: Sequence[Arm]) -> Arm | None:
    """The plainest arm: the one with the weakest penalties and the fewest other regularizers.

    Other regularizers are label smoothing, own losses, mixed images and averaged weights. Of several such arms, one
    with bn comes first, then one without a norm, then one with the most common norm.

    Of another program's arms: the one with the most settings such as baseline, none or off, then with the most that are
    null or 0, then the first. Only arms with a complete run qualify; None if there are none. No result enters the
    choice: ties are broken by a fixed order.
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
    """The sum of an arm's penalty strengths, and the number of other regularizers that are on."""
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
    """Distinct labels as typed after --baseline; of more than `N_QUOTED`, the number left out."""
    known = list(dict.fromkeys(labels))
    more = f", or {len(known) - N_QUOTED:,} more: the page lists them" if len(known) > N_QUOTED else ""
    return ", ".join(map(shlex.quote, known[:N_QUOTED])) + more


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
