"""Verdicts of earlier reports: testing the same arms again with other seeds would err more often than 5%.

The report keeps a file beside its page. A later report reads it, and marks its figures as exploratory where seeds were
added to tested runs, or some of these were left out, whatever its metric and baseline.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isnan
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
    """A table that was judged once: its tested arms by digest, with the seeds of each test (`tested_seeds`).

    Arms that were not ranked got no verdict, so they may still get their missing seeds, unless divergence was tested.
    `question` is the rest of the question, in words. `runs` are the seeds that each tested arm and the baseline had run
    by then. Older files lack both.
    """

    data: str
    metric: Name
    epoch: Name
    baseline: Name
    question: NotRequired[Name]
    when: Name
    arms: dict[str, list[Seed]]
    runs: NotRequired[dict[str, list[Seed]]]


class _File(TypedDict):
    schema: int
    judged: list[JudgedJson]


@dataclass(frozen=True)
class Earlier:
    """The tables that reports have judged before."""

    judged: list[JudgedJson]

    def reason(self, comparison: Comparison, baseline: Arm) -> str:
        """Why a table is no longer a valid test: a tested arm got or lost seeds since; empty if none did."""
        data = _data(comparison.data)
        for old in (old for old in self.judged if old["data"] == data):
            for arm in comparison.arms:
                if arm is not baseline and (change := _change(old, arm, baseline)):
                    n = len(_tested_before(old, arm, baseline))
                    return f"its arms were judged before, at {n} seeds ({old['when']}), and seeds were {change} since"
        return ""

    def other_questions(self, comparisons: Iterable[Comparison]) -> list[str]:
        """Other questions that earlier reports asked of these runs, with their times. Each has an error of its own."""
        said: dict[str, None] = {}
        for c in filter(_is_judged, comparisons):
            metric, epoch, baseline, question = _question(c)
            labels = {arm.digest: arm.label for arm in c.arms}
            for old in (old for old in self.judged if old["data"] == _data(c.data)):
                if not any(len(set(old["arms"].get(arm.digest, ())) & _ended(arm)) > 1 for arm in c.arms):
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
        """A copy with the tables judged now, in one analysis and not exploratory. The first test of the runs stays."""
        known = {(*_key(old), arm, tuple(seeds)) for old in self.judged for arm, seeds in old["arms"].items()}
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
            older: JudgedJson = {**table, "question": ""}
            for arm in c.arms:
                seeds = tested_seeds(arm, c)
                if seeds and known.isdisjoint((*_key(its), arm.digest, tuple(seeds)) for its in (table, older)):
                    table["arms"][arm.digest] = seeds
            if table["arms"]:
                named = (arm for arm in c.arms if arm is c.baseline or arm.digest in table["arms"])
                added.append({**table, "runs": {arm.digest: _runs(arm) for arm in named}})
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


def tested_seeds(arm: Arm, comparison: Comparison) -> list[int]:
    """The seeds of the test of an arm's mean, or of how often it diverges; empty where neither was tested.

    Of a mean, the seeds on which the arm and the baseline both have a score; of divergence, those that both ran to an
    end; of an unpaired table, all seeds of either. A single seed tests nothing.
    """
    found, base, judgement = arm.finding, comparison.baseline, comparison.judgement
    if found is None or base is None or judgement is None or found.by_image:
        return []
    is_of_means = found.verdict is not Verdict.NOT_RANKED and (found.is_tied or not isnan(found.difference.p))
    is_of_divergence = not isnan(found.p_divergence)
    if not (is_of_means or is_of_divergence):
        return []
    if judgement.pairing == "none":
        seeds, n = _ended(arm) | _ended(base), len(_ended(arm)) + len(_ended(base)) - 1
    else:
        seeds = _ended(arm) & _ended(base) if is_of_divergence else set(arm.seeds) & set(base.seeds)
        n = len(seeds)
    return sorted(seeds) if n > 1 else []


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


def _tested_before(old: JudgedJson, arm: Arm, baseline: Arm) -> set[int]:
    """The seeds on which an arm was tested: against any baseline, or as the baseline of the present one."""
    as_baseline = old["arms"].get(baseline.digest, ()) if arm.digest == old["baseline"] else ()
    return set(old["arms"].get(arm.digest, as_baseline))


def _change(old: JudgedJson, arm: Arm, baseline: Arm) -> str:
    """How the seeds of an arm's earlier test have changed since: 'added', 'left out', or empty if they have not.

    Fresh seeds alone are another test. So are the same runs by another question.
    """
    before, both = _tested_before(old, arm, baseline), (arm, baseline)
    runs = old.get("runs", {})
    had = {a.digest: set(runs.get(a.digest, before)) for a in both if a.digest in (old["baseline"], *old["arms"])}
    if not runs:  # an older file, which counted only the seeds with a score on both sides
        now = dict.fromkeys(had, set(arm.seeds) & set(baseline.seeds))
    elif (common := _ended(arm) & _ended(baseline)) and not old.get("question", "").endswith("pairing none"):
        now = dict.fromkeys(had, common)
    else:
        now = {a.digest: _ended(a) for a in both}
    if not any(now[digest] & seeds & before for digest, seeds in had.items()):
        return ""
    if any(now[digest] - seeds for digest, seeds in had.items()):
        return "added"
    return "left out" if any((had.get(a.digest, set()) & before) - set(a.tried) for a in both) else ""


def _ended(arm: Arm) -> set[int]:
    """The seeds whose run ended: with a score, failed or diverged."""
    return {*arm.seeds, *arm.failed, *arm.diverged}


def _runs(arm: Arm) -> list[int]:
    """The seeds that an arm has run, also those without a value of the metric that judges."""
    return sorted(_ended(arm)) if {*arm.n_by_status} - {"complete", "failed", "diverged"} else arm.tried


def _data(data: DataIdentity) -> str:
    left_out = ("name", "source", "kind") if data.kind == "images" else ("name", "source")  # as records before `kind`
    facts = {k: v for k, v in asdict(data).items() if k not in left_out}
    return ", ".join(f"{k} {v}" for k, v in facts.items())


def _key(table: JudgedJson) -> tuple[str, str, str, str, str]:
    return table["data"], table["metric"], table["epoch"], table["baseline"], table.get("question", "")
