"""A study with the runs of its trials: which runs are exploratory, and what the study's design has decided."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from reg_sweep.comparison.results import DataIdentity, Result
from reg_sweep.runs.record import METRIC
from reg_sweep.runs.study import Study, Trial
from reg_sweep.stats.family import Question
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import Judgement
from reg_sweep.stats.moderation import Pairing, Variance
from reg_sweep.stats.sequential import Design, Spending
from reg_sweep.stats.verdict import Verdict

Params = tuple[tuple[str, Any], ...]  # an arm's parameters, without its seed


@dataclass(frozen=True)
class StudyRuns:
    """A study and, by the numbers of its trials, those of their runs that the report has read.

    Attributes:
        number: counts the report's studies from 1.
        judgement: the findings of a sequential study's interim analyses, at the error of its table; None before the
            table is judged, and for other studies.
    """

    number: int
    study: Study
    runs: dict[int, Result]
    judgement: Judgement[Params] | None = None

    def saw(self, data: DataIdentity) -> bool:
        """Whether the trials' runs are those of a comparison's data."""
        return data == next((r.data for r in self.runs.values() if r.data is not None), None)

    @property
    def is_search(self) -> bool:
        """Whether its trials are exploratory and so are not judged."""
        return self.study.kind == "search"

    @property
    def best(self) -> tuple[Trial, Result] | None:
        """The best trial of a study of one objective, and its run; None where either is unknown."""
        ranked = self.study.ranked
        if len(self.study.directions) != 1 or not ranked or ranked[0].number not in self.runs:
            return None
        return ranked[0], self.runs[ranked[0].number]

    @cached_property
    def _digests(self) -> dict[Params, str]:
        return {arm_params(t.params): self.runs[t.number].arm for t in self.study.trials if t.number in self.runs}

    @property
    def digests(self) -> set[str]:
        """The digests of the arms whose runs were read."""
        return set(self._digests.values())

    def digest_of(self, params: Mapping[str, Any]) -> str:
        """The digest of the arm with these parameters; empty where no run of it was read."""
        return self._digests.get(arm_params(params), "")

    @property
    def baseline(self) -> str:
        """The digest of a sequential study's baseline; empty without a design or a run of the baseline."""
        return "" if self.study.design is None else self.digest_of(self.study.design.baseline)

    def judged_at(self, alpha: float | None) -> "StudyRuns":
        """The study with its `judgement`, at an error of `alpha` if that is less than the design's.

        The judgement follows the design fixed beforehand. Scores come from the runs' records; trials without a record
        here have the study's own values.

        Raises:
            ValueError: the study has no design, or none that `sequential.Design` accepts.
        """
        recorded = self.study.design
        if recorded is None:
            raise ValueError(f"study {self.study.name} must have a design to be judged by")
        design = Design(
            recorded.looks,
            recorded.alpha,
            recorded.margin,
            cast(Variance, recorded.variance),
            cast(Question, recorded.question),
            cast(Pairing, recorded.pairing),
            earlier_variance=recorded.earlier_variance,
            spending=cast(Spending, recorded.spending),
        )
        baseline = arm_params(recorded.baseline)
        judgement = judge(
            self._scores(),
            baseline,
            higher_is_better=self.higher_is_better,
            design=design,
            alpha=alpha,
            stopped=self._stopped(),
        )
        return replace(self, judgement=judgement)

    def _stopped(self) -> dict[Params, int]:
        """The number of seeds at which the study decided or gave up each arm, as recorded; it trained no more."""
        looks = self.study.looks
        return {
            arm_params(arm.params): look.seeds
            for look in looks
            for arm in look.arms
            if arm.decision != Verdict.UNDECIDED or not any(arm.params == a.params for a in looks[-1].arms)
        }

    @property
    def higher_is_better(self) -> bool:
        """Whether the study maximizes its objective."""
        return self.study.directions[0] == "maximize"

    def _scores(self) -> dict[Params, dict[int, float]]:
        """Each arm's scores by seed, for the completed looks: nan where it failed, infinite where it diverged."""
        design = self.study.design
        assert design is not None
        seeds = range(design.first_seed, design.first_seed + max((look.seeds for look in self.study.looks), default=0))
        scores = {arm_params(p): dict.fromkeys(seeds, math.nan) for p in (design.baseline, *design.arms)}
        metric = METRIC.get(design.metric)
        for trial in self.study.trials:
            arm, seed = arm_params(trial.params), int(trial.params.get("seed", -1))
            if trial.state != "complete" or arm not in scores or seed not in scores[arm]:
                continue
            run = self.runs.get(trial.number)
            value = math.nan if metric is None or run is None or run.status != "complete" else run.value(metric)
            value = value if math.isfinite(value) else trial.values[0]
            scores[arm][seed] = value if math.isfinite(value) else math.inf
        return scores

    def recorded(self, params: Params) -> list[str]:
        """The decisions on an arm in study.json, look by look, up to the one that decided it."""
        said = []
        for look in self.study.looks:
            found = next((arm for arm in look.arms if arm_params(arm.params) == arm_params(dict(params))), None)
            said.append("nothing" if found is None else found.decision)
        return said


def arm_params(params: Mapping[str, Any]) -> Params:
    """An arm's parameters, without its seed."""
    return tuple(sorted((name, value) for name, value in params.items() if name != "seed"))


def match_runs(number: int, study: Study, results: list[Result]) -> StudyRuns:
    """The study's trials with their runs, matched by directory."""
    by_path = {os.path.realpath(r.path): r for r in results}
    found = {t.number: by_path.get(os.path.realpath(t.directory)) for t in study.trials if t.directory is not None}
    return StudyRuns(number, study, {n: r for n, r in found.items() if r is not None})


def explored(results: list[Result], studies: list[StudyRuns]) -> list[Result]:
    """The runs that are not judged: a search's trials, and those of a study that was not read, unless it varied seeds.

    The trial that looks best was lucky on its seed, whether or not its study.json can be read.
    """
    known = {r.path for s in studies for r in s.runs.values()}
    orphans = [r for r in results if r.trial_params is not None and r.path not in known]
    lost = [r for r in orphans if r.trial_params is not None and "seed" not in r.trial_params]
    return [*(r for s in studies if s.is_search for r in s.runs.values()), *lost]
