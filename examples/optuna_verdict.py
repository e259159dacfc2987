"""A verdict in plain Optuna, without Hydra: a callback that judges arms on the same seeds until all are decided.

python optuna_verdict.py
"""

import math
import random
from collections.abc import Hashable, Mapping, Sequence

import optuna

from reg_sweep.stats.judge import judge
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict


class SequentialVerdict:
    """Judges the arms of a study against a baseline, and stops training an arm once it is decided.

    An arm is a value of one categorical parameter; another parameter is the seed. After 3, 5, 8, 12 and 20 seeds,
    unless the design sets others, each arm is judged by its differences from the baseline on the same seeds. The error
    rate of 5% covers all arms and analyses together. The study stops when all arms are decided, or after the design's
    last look.

    A failed trial counts as a failed seed of its arm. All trials must run in one process, with `n_jobs=1`.

    Attributes:
        decided: the verdict of each decided arm, and the number of seeds that it took.
    """

    def __init__(
        self,
        arm: str,
        arms: Sequence[Hashable],
        *,
        seed: str = "seed",
        higher_is_better: bool = False,
        design: Design | None = None,
    ) -> None:
        """Judges the values `arms` of the parameter `arm`; the first value is the baseline."""
        self._names, self._arms, self._seed = arm, list(arms), seed
        self._higher_is_better, self._design = higher_is_better, design or Design()
        self.decided: dict[Hashable, tuple[Verdict, int]] = {}
        self._analysed = 0

    def begin(self, study: optuna.Study) -> None:
        """Enqueues the trials up to the first analysis. Call it once, before `optimize`."""
        self._enqueue(study, 0, self._design.looks[0])

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Analyses the complete seeds, and enqueues more seeds for the undecided arms."""
        n_done = self._n_done(study)
        if n_done not in self._design.looks or n_done <= self._analysed:
            return
        self._analysed = n_done
        stopped = {self._arms.index(arm): n for arm, (_, n) in self.decided.items()}
        scores = {i: self._scores(study, arm, stopped.get(i, n_done)) for i, arm in enumerate(self._arms)}
        found = judge(scores, 0, higher_is_better=self._higher_is_better, design=self._design, stopped=stopped)
        for i, finding in found.arms.items():
            last = finding.path[-1]
            if i not in stopped and last.verdict is not Verdict.UNDECIDED:
                self.decided[self._arms[i]] = last.verdict, n_done
        later = [n for n in self._design.looks if n > n_done]
        if not later or len(self.decided) == len(self._arms) - 1:
            study.stop()
            return
        self._enqueue(study, n_done, later[0])

    def _enqueue(self, study: optuna.Study, begin: int, end: int) -> None:
        for seed in range(begin, end):
            for arm in self._arms:
                if arm not in self.decided:
                    study.enqueue_trial({self._names: arm, self._seed: seed})

    def _n_done(self, study: optuna.Study) -> int:
        """Number of seeds that the baseline and all undecided arms have completed."""
        open_arms = [arm for arm in self._arms if arm not in self.decided]
        return min(len(self._of(study, arm)) for arm in open_arms)

    def _scores(self, study: optuna.Study, arm: Hashable, n: int) -> Mapping[int, float]:
        return {seed: value for seed, value in self._of(study, arm).items() if seed < n}

    def _of(self, study: optuna.Study, arm: Hashable) -> dict[int, float]:
        """An arm's values by seed; nan if the trial failed."""
        trials = [t for t in study.trials if t.state.is_finished() and t.params.get(self._names) == arm]
        return {t.params[self._seed]: math.nan if t.value is None else t.value for t in trials}


def objective(trial: optuna.Trial) -> float:
    """A synthetic score: 'good' is better by 1, 'same' is not better. All arms share most of a seed's noise."""
    arm = trial.suggest_categorical("arm", ["plain", "good", "same"])
    seed = trial.suggest_int("seed", 0, 99)
    shared, own = random.Random(seed), random.Random(f"{arm} {seed}")
    return shared.gauss(0, 1) + own.gauss(0, 0.1) + (arm == "good")


def main() -> None:
    """Judges two arms against the first one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    verdict = SequentialVerdict(
        "arm", ["plain", "good", "same"], higher_is_better=True, design=Design(looks=(3, 5, 8, 12, 20), margin=0.5)
    )
    study = optuna.create_study(direction="maximize")
    verdict.begin(study)
    study.optimize(objective, n_trials=60, callbacks=[verdict])
    for arm, (found, n_seeds) in verdict.decided.items():
        print(f"{arm}: {found.value}, after {n_seeds} seeds")
    print(f"{len(study.trials)} trials of at most 60")


if __name__ == "__main__":
    main()
