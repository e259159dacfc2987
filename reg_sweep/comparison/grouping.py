"""Groups runs into tables: those of one study, and the others by data, model, epochs and schedule.

A table holds runs that were planned to be compared. Neither their folder alone nor any result determines it.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reg_sweep.comparison.labels import data_labels, flatten, has_schema
from reg_sweep.comparison.results import DataIdentity, Result
from reg_sweep.comparison.study_runs import StudyRuns

_PROTOCOL = ("model._target_", "epochs", "schedule.name")  # in the order in which a label names them


@dataclass
class Table:
    """The runs of a table, before they are judged.

    Attributes:
        label: names the table, and sets it apart from the others of its page.
        trials: runs of searches, which are shown and not judged.
        study: the study that made the runs; None for runs of no study.
        newest: when the last of its runs ended.
    """

    data: DataIdentity
    runs: list[Result]
    trials: list[Result] = field(default_factory=list)
    study: StudyRuns | None = None
    label: str = ""

    @property
    def newest(self) -> str:
        """When the last of its runs ended, as ISO 8601; empty where none has."""
        return max((r.ended for r in (*self.runs, *self.trials)), default="")


def make_tables(
    results: Sequence[Result], studies: Sequence[StudyRuns], explored: Collection[str], *, together: bool
) -> list[Table]:
    """The tables of a page, the newest first. Runs that never loaded their data are in none.

    Each study has one table per data set that its runs saw; a search's table holds only trials. Other runs of the same
    data form one table per protocol (`protocol`), and one per sequential study whose study.json is missing. Such a
    table is divided where one sweep's runs would cost another sweep's arms their verdict (`_balanced`). With
    `together`, the runs of each data set that are neither trials nor part of a sequential study form one table,
    whatever their protocol.

    Args:
        explored: the real paths of the runs of searches.
    """
    known = [r for r in results if r.data is not None]
    sizes = Counter(r.data for r in known)
    tables, taken = [], set[Path]()
    for study in studies:
        if together and study.study.kind == "grid":
            continue
        own = {r.path for r in study.runs.values()}
        folders = {path.parent for path in own} if study.study.kind == "grid" else set()
        # A later command may extend a grid in its folder without the study, so all runs in that folder belong to it.
        runs = [r for r in known if r.path not in taken and (r.path in own or r.path.parent in folders)]
        taken.update(r.path for r in runs)
        for data, of_data in _by(runs, lambda r: r.data).items():
            judged, trials = ([], of_data) if study.is_search else (of_data, [])
            tables.append(Table(data, judged, trials, study))
    protocols: dict[str, str] = {}  # by arm, since an arm's runs share one
    for r in known:
        if r.arm not in protocols:
            protocols[r.arm] = "" if together else repr(sorted(protocol(r.config).items()))
    others = (r for r in known if r.path not in taken)
    for (data, _, _), runs in _by(others, lambda r: (r.data, protocols[r.arm], r.bought_by)).items():
        trials = [r for r in runs if os.path.realpath(r.path) in explored]
        judged = [r for r in runs if os.path.realpath(r.path) not in explored]
        parts = [judged] if together else _balanced(judged)
        tables += [Table(data, part, trials if n == 0 else []) for n, part in enumerate(parts or [[]])]
    tables.sort(key=lambda t: -sizes[t.data])
    tables.sort(key=lambda t: t.newest, reverse=True)
    for table, label in zip(tables, _labels(tables, together=together), strict=True):
        table.label = label
    return tables


def protocol(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that runs of a table share: model, epochs and schedule, flattened; none for other programs' runs."""
    flat = flatten(config) if has_schema(config) else {}
    return {k: v for k, v in flat.items() if k == "epochs" or k.startswith(("model.", "schedule."))}


def _by(runs: Iterable[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    found: dict[Any, list[Result]] = {}
    for r in runs:
        found.setdefault(key(r), []).append(r)
    return found


# ---- runs of one protocol, from several folders


def _balanced(runs: list[Result]) -> list[list[Result]]:
    """Splits the runs of one protocol into as few parts as keep every sweep's arms comparable.

    A sweep is the runs in one folder. Arms that it ran on the same seeds, at least two, are compared on these seeds. A
    part must not give some of these arms seeds that the others lack, because an arm that lacks one of the baseline's
    seeds is not ranked. So a grid keeps its verdict whatever else was trained, and a grid continued in another folder
    is still one grid.
    """
    if runs and runs[0].is_foreign:  # one source, or several that are read as one
        return [runs]
    sweeps = sorted(_by(runs, lambda r: r.path.parent).values(), key=lambda own: min(r.ended for r in own))
    if len(sweeps) < 2:
        return [runs] if runs else []
    plans = [_plan(own) for own in sweeps]
    if _is_balanced(plans):
        return [runs]
    loose = [own for own, plan in zip(sweeps, plans, strict=True) if not _matched(plan)]
    units = [own for own, plan in zip(sweeps, plans, strict=True) if _matched(plan)]
    units += [[r for own in loose for r in own]] if loose else []
    parts: list[tuple[list[_Plan], list[Result]]] = []
    for own in units:
        plan = _plan(own)
        home = next((part for part in parts if _is_balanced([*part[0], plan])), None)
        if home is None:
            parts.append(([plan], list(own)))
        else:
            home[0].append(plan)
            home[1].extend(own)
    return [own for _, own in parts]


_Plan = dict[str, frozenset[int]]  # the seeds on which each arm was run, with runs of any status


def _plan(runs: list[Result]) -> _Plan:
    return {arm: frozenset(r.seed for r in own) for arm, own in _by(runs, lambda r: r.arm).items()}


def _matched(plan: _Plan) -> list[list[str]]:
    """The arms that a sweep ran on the same seeds, two or more, in groups of two or more."""
    groups: dict[frozenset[int], list[str]] = {}
    for arm, seeds in plan.items():
        groups.setdefault(seeds, []).append(arm)
    return [arms for seeds, arms in groups.items() if len(seeds) > 1 and len(arms) > 1]


def _is_balanced(plans: Sequence[_Plan]) -> bool:
    """Whether arms that one sweep ran on the same seeds have the same seeds over all sweeps."""
    seeds: dict[str, set[int]] = {}
    for plan in plans:
        for arm, own in plan.items():
            seeds.setdefault(arm, set()).update(own)
    return all(seeds[arm] == seeds[arms[0]] for plan in plans for arms in _matched(plan) for arm in arms)


# ---- names


def _labels(tables: Sequence[Table], *, together: bool) -> list[str]:
    """A name for each table: its study's, its data, and what sets its protocol apart; its folder where all agree."""
    data = list(dict.fromkeys(t.data for t in tables))
    named = dict(zip(data, data_labels([asdict(d) for d in data]), strict=True))
    protocols = [{} if together else protocol((t.runs or t.trials)[0].config) for t in tables]
    studies = [t.study.study.name if t.study is not None and len(tables) > 1 else "" for t in tables]
    labels = []
    for t, p, study in zip(tables, protocols, studies, strict=True):
        others = [q for other, q in zip(tables, protocols, strict=True) if other.data == t.data]
        keys = [key for key in dict.fromkeys(k for q in others for k in q) if _differs(key, others)]
        short = [key for key in _PROTOCOL if key in keys]
        alike = [q for q in others if all(q.get(key) == p.get(key) for key in short)]
        said = short if all(q == p for q in alike) else keys
        labels.append(
            ", ".join(filter(None, [study, named[t.data], *(_part(key, p[key]) for key in said if key in p)]))
        )
    for name_of in (_made_as, _folder):
        times = Counter(labels)
        labels = [
            f"{label}, {name_of(t)}" if times[label] > 1 else label for t, label in zip(tables, labels, strict=True)
        ]
    times = Counter(labels)
    return [f"{label}, part {n}" if times[label] > 1 else label for n, label in enumerate(labels, 1)]


def _differs(key: str, protocols: Sequence[dict[str, Any]]) -> bool:
    return len({repr(p.get(key)) for p in protocols}) > 1


def _part(key: str, value: Any) -> str:
    if key == "epochs":
        return f"{value} epoch{'' if value == 1 else 's'}"
    text = str(value).rpartition(".")[2] if key == "model._target_" else str(value)
    return text if key in _PROTOCOL else f"{key.rpartition('.')[2].replace('_', ' ')} {text}"


def _made_as(table: Table) -> str:
    """'single runs', or the name of the grid that made most of a table's runs."""
    runs = table.runs or table.trials
    is_single = sum(str(r.config.get("name", "")) == r.path.name for r in runs) * 2 > len(runs)
    return "single runs" if is_single else _folder(table)


def _folder(table: Table) -> str:
    """The name of the folder that most of a table's runs lie in."""
    return Counter(r.path.parent.name for r in table.runs or table.trials).most_common(1)[0][0]
