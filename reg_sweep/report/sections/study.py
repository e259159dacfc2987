"""What the page shows of one study, and of the runs of its trials."""

import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from reg_sweep.comparison.arms import Data, Result
from reg_sweep.comparison.labels import lambda_text
from reg_sweep.comparison.wording import DASH, count, words
from reg_sweep.report.figures import studies as study_figures
from reg_sweep.report.figures.studies import TrialPoint
from reg_sweep.report.figures.theme import Picture, shown
from reg_sweep.report.rows import link
from reg_sweep.study_record import TRIAL_STATES, Study, Trial

N_STUDIES = 12
N_PARAMETERS = 8  # of a study, drawn
N_TRIALS_LISTED = 10


class StudySection:
    """A study and the runs of its trials: what the page shows of them."""

    def __init__(self, number: int, study: Study, results: list[Result]) -> None:
        self._number, self._study = number, study
        by_path = {os.path.realpath(r.path): r for r in results}
        found = {t.number: by_path.get(os.path.realpath(t.directory)) for t in study.trials if t.directory is not None}
        self._runs = {number: r for number, r in found.items() if r is not None}
        self._folder = Path()
        objective = next((r.config.get("objective") for r in self._runs.values()), None)
        names = [objective] if isinstance(objective, str) else list(objective or [])
        n = len(study.directions)
        self._objectives = list(map(str, names)) if len(names) == n else [f"objective {i + 1}" for i in range(n)]
        if n == 1 and not names:
            self._objectives = ["objective"]

    def saw(self, data: Data) -> bool:
        """Whether the trials' runs are those of a table's data."""
        return data == next((r.data for r in self._runs.values() if r.data is not None), None)

    def warning(self) -> str:
        """What a reader of the verdict must know of arms that a search chose; empty if it chose none."""
        n = len(self._study.trials)
        if self._study.has_replicates or len(self._study.ranked) < 2:
            return ""
        return (
            f"The study {self._study.name} chose its arms, one seed each: the best of {n} tries looks better on val "
            "than the same arm would again. Judge it on new seeds, as told under Studies."
        )

    def build(self, folder: Path) -> dict[str, Any]:
        study, ranked = self._study, self._study.ranked
        self._folder = folder
        return {
            "name": study.name,
            "text": self._text(),
            "pictures": self._pictures(),
            "importances": [
                {"name": name, "share": f"{share:.0%}", "width": f"{100 * min(max(share, 0), 1):.1f}"}
                for name, share in sorted(study.importances.items(), key=lambda item: -item[1])
            ],
            "objectives": [self._unit(i) for i in range(len(study.directions))],
            "parameters": list(dict.fromkeys(name for t in ranked for name in t.params)),
            "is_front": len(study.directions) > 1,
            "best": [self._row(t) for t in ranked[:N_TRIALS_LISTED]],
            "n_ranked": len(ranked),
            "command": self._command(),
            "is_search": not study.has_replicates,
            "failures": [(t.number, t.message) for t in study.trials if t.state == "failed"][:N_TRIALS_LISTED],
        }

    def _unit(self, i: int) -> str:
        name = self._objectives[i]
        return f"{words(name)}, %" if _is_share(name) else words(name)

    def _value(self, i: int, value: float) -> str:
        if not math.isfinite(value):
            return "not finite"
        return f"{100 * value:.2f}" if _is_share(self._objectives[i]) else f"{value:#.4g}"

    def _row(self, trial: Trial) -> dict[str, Any]:
        run = self._runs.get(trial.number)
        return {
            "number": trial.number,
            "link": None if run is None else link(run.path, self._folder),
            "params": {k: _parameter_text(v) for k, v in trial.params.items()},
            "values": [self._value(i, v) for i, v in enumerate(trial.values)],
            "epochs": DASH if run is None else len(run.curves),
        }

    def _text(self) -> str:
        """'30 trials: 11 complete, 19 pruned. Best is trial 0 (l1 0.001): val loss 0.06. ...'"""
        study, ranked = self._study, self._study.ranked
        counts = Counter(t.state for t in study.trials)
        found = ", ".join(f"{counts[s]:,} {s}" for s in TRIAL_STATES if counts[s])
        text = [f"{count(len(study.trials), 'trial')}: {found or 'none yet'}."]
        if ranked and len(study.directions) == 1:
            params = ", ".join(f"{k} {_parameter_text(v)}" for k, v in ranked[0].params.items())
            unit = " %" if _is_share(self._objectives[0]) else ""
            value = f"{words(self._objectives[0])} {self._value(0, ranked[0].values[0])}{unit}"
            text.append(f"Best is trial {ranked[0].number} ({params}): {value}.")
        elif ranked:
            text.append(
                f"{count(len(ranked), 'trial is', 'trials are')} on the Pareto front: "
                "none is better in one objective without being worse in another."
            )
        return " ".join([*text, *self._epochs()])

    def _epochs(self) -> list[str]:
        """How many epochs the ended trials took, and what share pruning saved; nothing without records."""
        ended = {t.number: t for t in self._study.trials if t.state in ("complete", "pruned")}
        runs = {n: r for n, r in self._runs.items() if n in ended}
        whole = sum(int(r.config["epochs"]) for r in runs.values())
        if not whole:
            return []
        done = sum(len(r.curves) for r in runs.values())
        pruned = [r for n, r in runs.items() if ended[n].state == "pruned"]
        text = f"The ended trials took {done:,} of {whole:,} epochs"
        if not pruned:
            return [f"{text}."]
        saved = sum(int(r.config["epochs"]) - len(r.curves) for r in pruned)
        return [f"{text}: pruning saved {saved / whole:.0%}."]

    def _command(self) -> str:
        """How to run the best trial on seeds that chose nothing, and without each searched lambda; empty if unknown."""
        study = self._study
        if study.has_replicates or not study.ranked or not study.command:
            return ""
        first = max((r.seed for r in self._runs.values()), default=0) + 1
        overrides = [f"seed={first},{first + 1},{first + 2}"]
        if len(study.directions) == 1:  # those of a front have a lambda each
            best = study.ranked[0].params
            overrides += [f"{key}=0,{best[key]}" for key in ("l1", "l2") if best.get(key)]
        # Plain Hydra takes its overrides in one piece.
        return " ".join([study.command, *overrides, "-m"])

    def _points(self) -> list[TrialPoint]:
        found = []
        for t in self._study.trials:
            values = t.values if t.state == "complete" else (t.last,) if t.state == "pruned" else ()
            if values and all(map(math.isfinite, values)):
                found.append(TrialPoint(t.number, t.params, values, t.state == "pruned"))
        return found

    def _pictures(self) -> list[dict[str, Any]]:
        study, points, ranked = self._study, self._points(), self._study.ranked
        if not points:
            return []
        if len(study.directions) > 1:
            return [self._front(points, ranked)] if ranked else []
        unit, is_share = self._unit(0), _is_share(self._objectives[0])
        failed = [t.number for t in study.trials if t.state == "failed"]
        title = f"{study.name}: trial by trial"
        figure = study_figures.history(
            title, unit, points, failed, minimize=study.directions == ["minimize"], is_accuracy=is_share
        )
        drawn = [self._draw("history", figure, f"{title}. {self._text()}")]
        best = ranked[0].number if ranked else None
        for name in study.parameters[:N_PARAMETERS]:
            having = [p for p in points if name in p.params]
            if len({repr(p.params[name]) for p in having}) < 2:
                continue
            title = f"{study.name}: {name}"
            ringed = best if any(p.number == best for p in having) else None
            figure = study_figures.parameter(title, name, unit, having, ringed, is_accuracy=is_share)
            alt = f"{title}. {unit} against {name} of {len(having)} trials"
            if ringed is not None:
                alt += f"; the best has {name} {_parameter_text(ranked[0].params[name])}"
            drawn.append(self._draw(re.sub(r"\W+", "-", name), figure, f"{alt}."))
        return drawn

    def _front(self, points: list[TrialPoint], ranked: list[Trial]) -> dict[str, Any]:
        title = f"{self._study.name}: the Pareto front"
        units = [self._unit(i) for i in range(len(self._objectives))]
        figure = study_figures.pareto_front(title, units, points, [t.number for t in ranked])
        ends = "; ".join(
            f"trial {t.number}: " + ", ".join(f"{unit} {self._value(i, t.values[i])}" for i, unit in enumerate(units))
            for t in (ranked[0], ranked[-1])
        )
        return self._draw("front", figure, f"{title}. {len(ranked)} of {len(points)} trials, from {ends}.")

    def _draw(self, name: str, figure: Any, alt: str) -> dict[str, Any]:
        picture = Picture(f"trials-{self._number}-{name}", alt, figure)
        return shown(picture, self._folder, f"t{self._number}{name}")


def _is_share(objective: str) -> bool:
    return objective.endswith(("accuracy", "_share"))


def _parameter_text(value: Any) -> str:
    return lambda_text(value) if isinstance(value, float) and value >= 0 else str(value)
