"""Verdicts of earlier reports: testing the same arms again with more seeds would err more often than 5%.

The report keeps a file beside its page. A later report with more seeds reads it and marks its figures as exploratory.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict, cast

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.results import DataIdentity
from reg_sweep.runs import validation
from reg_sweep.runs.discovery import real_path
from reg_sweep.runs.record import RecordError
from reg_sweep.runs.validation import MAX_WHOLE, Between, Name
from reg_sweep.stats.verdict import Verdict

JUDGED_FILE = "judged.json"
SCHEMA = 1
_MAX_FILE = 16_000_000  # bytes: thousands of arms of a hundred seeds
Seed = Annotated[int, Between(0, MAX_WHOLE, "a whole number")]


class JudgedJson(TypedDict):
    """A table that was judged once: its arms by digest, with the seeds that each had in common with the baseline.

    Arms that were not ranked got no verdict, so they may still get their missing seeds. `question` is the rest of the
    question, in words; older files lack it.
    """

    data: str
    metric: Name
    epoch: Name
    baseline: Name
    question: NotRequired[Name]
    when: Name
    arms: dict[str, list[Seed]]


class _File(TypedDict):
    schema: int
    judged: list[JudgedJson]


@dataclass(frozen=True)
class Earlier:
    """The tables that reports have judged before."""

    judged: list[JudgedJson]

    def reason(self, comparison: Comparison, baseline: Arm) -> str:
        """Why a table is no longer a valid test: an arm got seeds after a verdict; empty if none did."""
        key = _data(comparison.data), comparison.metric.name, comparison.epoch, baseline.digest
        for old in (old for old in self.judged if _key(old) == key):
            for arm in comparison.arms:
                before = set(old["arms"].get(arm.digest, ()))
                if len(before) > 1 and before < set(_pairs(arm, baseline)):
                    n = len(before)
                    return f"its arms were judged before, at {n} seeds ({old['when']}), and seeds were added since"
        return ""

    def other_questions(self, comparisons: Iterable[Comparison]) -> list[str]:
        """Other questions that earlier reports asked of these runs, with their times. Each has an error of its own."""
        said: dict[str, None] = {}
        for c in filter(_is_judged, comparisons):
            metric, epoch, baseline, question = _question(c)
            labels = {arm.digest: arm.label for arm in c.arms}
            for old in (old for old in self.judged if old["data"] == _data(c.data)):
                if not any(len(set(old["arms"].get(arm.digest, ())) & set(arm.seeds)) > 1 for arm in c.arms):
                    continue
                asked = {
                    old["metric"]: metric,
                    f"epoch {old['epoch']}": f"epoch {epoch}",
                    f"baseline {labels.get(old['baseline'], 'of another table')}": f"baseline {labels[baseline]}",
                    old.get("question", question): question,
                }
                if other := ", ".join(before for before, now in asked.items() if before != now):
                    said[f"{other} ({old['when']})"] = None
        return list(said)

    def with_judged(self, comparisons: Iterable[Comparison]) -> "Earlier":
        """A copy with the tables judged now, in one analysis and not exploratory. The first verdict on an arm stays."""
        known = {(*_key(old), old.get("question"), arm) for old in self.judged for arm in old["arms"]}
        added: list[JudgedJson] = []
        for c in comparisons:
            if c.baseline is None or not _is_judged(c):
                continue
            metric, epoch, baseline, question = _question(c)
            table: JudgedJson = {
                "data": _data(c.data),
                "metric": metric,
                "epoch": epoch,
                "baseline": baseline,
                "question": question,
                "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "arms": {},
            }
            for arm in c.arms:
                pairs = _pairs(arm, c.baseline)
                is_judged = arm.verdict is not None and arm.verdict is not Verdict.NOT_RANKED
                keys = [(*_key(table), asked, arm.digest) for asked in (question, None)]
                if is_judged and len(pairs) > 1 and known.isdisjoint(keys):
                    table["arms"][arm.digest] = pairs
            if table["arms"]:
                added.append(table)
        return Earlier([*self.judged, *added])

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"schema": SCHEMA, "judged": self.judged}, indent=1) + "\n"


def read_earlier(folders: Sequence[Path]) -> Earlier:
    """The tables that the reports in these folders have judged.

    Raises:
        RecordError: a file is torn, of a newer schema, or something else.
    """
    judged: list[JudgedJson] = []
    for path in dict.fromkeys(real_path(folder / JUDGED_FILE) for folder in folders):
        if not path.exists():
            continue
        try:
            facts = validation.read_json(path, _MAX_FILE)
            validation.check(facts, _File)
            if facts["schema"] != SCHEMA:
                raise ValueError(f"schema {facts['schema']}, this version reads {SCHEMA}")
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path} must be a report's record of its verdicts, got a file that can't be read "
                f"({validation.one_line(error)}): move it away, or name another folder with --out"
            ) from None
        judged += [table for table in cast(_File, facts)["judged"] if table not in judged]
    return Earlier(judged)


def _is_judged(c: Comparison) -> bool:
    """Whether these arms got verdicts in a single analysis."""
    return c.judgement is not None and c.judgement.design is None and not c.judgement.exploratory


def _question(c: Comparison) -> tuple[str, str, str, str]:
    """The question of a judged table: metric, epoch, the baseline's digest, and the rest in words."""
    j = c.judgement
    assert j is not None
    assert c.baseline is not None
    margin = "no margin" if j.margin is None else f"margin {j.margin:g}"
    rest = f"{j.question.replace('_', ' ')}, {margin}, {j.variance} variances, pairing {j.pairing}"
    return c.metric.name, c.epoch, c.baseline.digest, rest


def _pairs(arm: Arm, baseline: Arm) -> list[int]:
    """The seeds that an arm has in common with the baseline."""
    return sorted(set(arm.seeds) & set(baseline.seeds))


def _data(data: DataIdentity) -> str:
    left_out = ("name", "source", "kind") if data.kind == "images" else ("name", "source")  # as records before `kind`
    facts = {k: v for k, v in asdict(data).items() if k not in left_out}
    return ", ".join(f"{k} {v}" for k, v in facts.items())


def _key(table: JudgedJson) -> tuple[str, str, str, str]:
    return table["data"], table["metric"], table["epoch"], table["baseline"]
