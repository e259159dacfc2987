"""The runs of a table: one row per run or epoch, or one column per seed or arm, as its contents show."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.readers import names
from reg_sweep.readers.cells import Column, Table, is_missing
from reg_sweep.readers.charts import ARM, chart_runs
from reg_sweep.readers.foreign import ForeignRun, ReadError, Series, Wanted, plain, status_of

Codes = NDArray[np.int64]
Form = Literal[
    "one row per run",
    "one row per epoch",
    "one column per seed",
    "one column per arm",
    "a chart of W&B, one column per run",
]
_SEED_HEADING = re.compile(
    r"(?P<score>.*?)[\s_./(|-]*?(?:^|(?<=[\s_./(|-]))(?:seed|s|run|rep|replicate|repeat|fold)?[\s_=#-]*(?P<seed>\d{1,10})\)?",
    re.IGNORECASE,
)


@dataclass
class _Roles:
    """The role of each column of a table."""

    seed: Column | None = None
    step: Column | None = None
    status: Column | None = None
    seconds: Column | None = None
    scores: list[Column] = field(default_factory=list)
    settings: list[Column] = field(default_factory=list)
    ids: list[Column] = field(default_factory=list)


def table_runs(table: Table, wanted: Wanted) -> tuple[Form, list[ForeignRun]]:
    """The runs of a table, and its form.

    Raises:
        ReadError: a named column is missing, a score's cell holds no number, or no column can be recognized as a score.
    """
    chart = chart_runs(table, wanted)
    if chart is not None:
        return "a chart of W&B, one column per run", chart
    wide = _wide(table, wanted)
    by_arm = _by_arm(table, wanted) if wide is None else None
    if by_arm is not None:
        return "one column per arm", by_arm
    _require_columns(table, wanted)
    if wide is not None:
        return "one column per seed", wide
    roles = _roles(table, wanted)
    _require_numbers(table, wanted)
    keys = _keys(table, roles)
    if roles.step is None:
        return "one row per run", _by_row(table, roles)
    return "one row per epoch", _by_epoch(table, roles, keys)


def _require_columns(table: Table, wanted: Wanted) -> None:
    known = table.columns
    asked = [("--seed", wanted.seed)] if wanted.seed != "none" else []
    asked += [("--arm", name) for name in wanted.arms or ()]
    for option, name in asked:
        if name is not None and name not in known and len(known) < 100:
            raise ReadError(f"{table.path}: {option} must name a column, got {name!r}: it has {', '.join(known)}")


def _require_numbers(table: Table, wanted: Wanted) -> None:
    """Refuses a score with a cell that is not a number."""
    for name, column in table.columns.items():
        is_score = name == wanted.score
        if column.is_numeric or not (is_score or names.direction(name) is not None):
            continue
        cells = [(row, value) for row, value in enumerate(column.values) if not is_missing(value)]
        bad = [(row, value) for row, value in cells if not isinstance(value, float) and not _is_number(value)]
        if bad and (is_score or len(bad) < 0.5 * len(cells)):
            row, value = bad[0]
            raise ReadError(
                f"{table.path}, line {table.first_line + row}: column {name} must hold numbers, got "
                f"{str(value)[:60]!r}: write it as a number, or leave the cell empty where the run failed"
            )
        if not cells and is_score:
            raise ReadError(f"{table.path}: column {name} must hold numbers, got only empty cells")


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


# ---- roles


def _roles(table: Table, wanted: Wanted) -> _Roles:
    roles, columns = _Roles(), table.columns
    by_role: dict[str, list[Column]] = {}
    for column in columns.values():
        by_role.setdefault(names.role(column.name), []).append(column)
    if wanted.seed is not None:
        roles.seed = columns.get(wanted.seed)
    elif by_role.get("seed"):
        roles.seed = min(by_role["seed"], key=lambda c: names.seed_rank(c.name))
    elif wanted.seed is None:
        roles.seed = next(
            (c for c in by_role.get("id", ()) if c.name.lower() in ("run", "trial") and _repeats(c)), None
        )
    roles.status = next((c for c in by_role.get("status", ()) if not c.is_numeric), None)
    roles.seconds = next((c for c in columns.values() if c.is_numeric and names.is_duration(c.name)), None)
    steps = [c for c in by_role.get("step", ()) if c.is_numeric and len(set(c.values)) > 1]
    roles.step = min(steps, key=lambda c: names.step_rank(c.name), default=None)
    taken = [roles.seed, roles.status, *by_role.get("step", ())]
    left = [c for c in columns.values() if not any(c is t for t in taken)]
    is_named = set(wanted.arms or ())
    roles.scores = [c for c in left if c.is_numeric and _is_score(c.name, wanted) and c.name not in is_named]
    roles.ids = [c for c in left if names.role(c.name) == "id" and c.name not in is_named and c not in roles.scores]
    rest = [c for c in left if c not in roles.scores and c not in roles.ids and not _is_lost(c)]
    roles.settings = [
        c for c in rest if c.name in is_named or (not c.is_numeric and names.role(c.name) in ("", "dataset", "seed"))
    ]
    _place_numbers(table, roles, [c for c in rest if c.is_numeric and c.name not in is_named])
    _place_ids(roles)
    return roles


def _is_score(name: str, wanted: Wanted) -> bool:
    if name == wanted.score:
        return True
    return names.role(name) == "" and names.direction(name) is not None and not names.is_hyperparameter(name)


def _is_lost(column: Column) -> bool:
    """Whether it is a score that no run has."""
    return names.direction(column.name) is not None and all(map(is_missing, column.values))


def _repeats(column: Column) -> bool:
    """Whether a column's values repeat, as seeds do: each at least twice on average."""
    known = [v for v in column.values if v is not None]
    return bool(known) and len(known) >= 2 * len(set(known))


def _place_numbers(table: Table, roles: _Roles, columns: list[Column]) -> None:
    """Distinguishes settings from measurements: it does not change within a run, and other seeds share its values."""
    known = [c for c in columns if names.role(c.name) in ("", "dataset", "seed")]
    ordered = sorted(known, key=lambda c: (not names.is_hyperparameter(c.name), len(set(c.values))))
    key = _codes(table.n_rows, [roles.seed, *roles.settings, *roles.ids])
    arm = _codes(table.n_rows, roles.settings)
    step = None if roles.step is None else _codes(table.n_rows, [roles.step])
    for column in ordered:
        own = _codes(table.n_rows, [column])
        joined = _joined(key, own)
        varies = _n(joined) > _n(key)
        repeats = _n(key if step is None else _joined(key, step)) < table.n_rows
        if step is not None:
            is_setting = not varies or repeats
        elif names.is_hyperparameter(column.name):
            is_setting = True
        else:
            n_groups = _n(_joined(arm, own))
            is_setting = n_groups <= max(_n(arm), table.n_rows // 2)
        if is_setting:
            roles.settings.append(column)
            key, arm = joined, _joined(arm, own)
        else:
            roles.scores.append(column)
    if roles.step is not None and _n(key) == table.n_rows:
        roles.step = None  # each row is a run of its own, whose step only says how long it was


def _place_ids(roles: _Roles) -> None:
    """A name that several seeds share is a setting; one that is unique to each run is not."""
    for column in list(roles.ids):
        values = {v for v in column.values if v is not None}
        n_seeds = 1 if roles.seed is None else len(set(roles.seed.values))
        if len(values) > 1 and n_seeds > 1 and not column.is_numeric and roles.seed is not None:
            pairs = set(zip(column.values, roles.seed.values, strict=True))
            if len(pairs) >= 2 * len(values):
                roles.ids.remove(column)
                roles.settings.append(column)


# ---- grouping rows


def _codes(n_rows: int, columns: Sequence[Column | None]) -> Codes:
    """A number for each row, equal where these columns are equal; 0 without columns."""
    found = np.zeros(n_rows, np.int64)
    for column in columns:
        if column is not None:
            places: dict[Any, int] = {}
            own = np.array([places.setdefault(v, len(places)) for v in column.values], np.int64)
            found = _joined(found, own)
    return found


def _joined(a: Codes, b: Codes) -> Codes:
    if a.size == 0:
        return a
    joined: Codes = np.unique(a * (int(b.max()) + 1) + b, return_inverse=True)[1].astype(np.int64)
    return joined


def _n(codes: Codes) -> int:
    return int(codes.max()) + 1 if codes.size else 0


def _keys(table: Table, roles: _Roles) -> Codes:
    return _codes(table.n_rows, [roles.seed, *roles.settings, *roles.ids])


def _settings(roles: _Roles, row: int) -> dict[str, Any]:
    found = {c.name: plain(c.values[row]) for c in (*roles.settings, *roles.ids)}
    return found if roles.seed is None else found | {roles.seed.name: plain(roles.seed.values[row])}


def _by_row(table: Table, roles: _Roles) -> list[ForeignRun]:
    runs = []
    for row in range(table.n_rows):
        scores = {c.name: math.nan if (v := c.values[row]) is None else float(v) for c in roles.scores}
        runs.append(
            ForeignRun(
                "table",
                table.path,
                _settings(roles, row),
                scores,
                status="complete" if roles.status is None else status_of(str(roles.status.values[row] or "")),
                place=f"line {table.first_line + row}",
                seconds=math.nan if roles.seconds is None else _seconds(roles.seconds.values[row]),
            )
        )
    return runs


def _by_epoch(table: Table, roles: _Roles, keys: Codes) -> list[ForeignRun]:
    assert roles.step is not None
    assert roles.step.numbers is not None
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    runs = []
    steps = roles.step.numbers
    for rows in np.split(order, starts[1:]):
        first, last = int(rows.min()), int(rows.max())
        history, scores = {}, {}
        for column in roles.scores:
            assert column.numbers is not None
            values, own = column.numbers[rows], steps[rows]
            is_known = ~np.isnan(own)
            is_known &= np.array([column.values[r] is not None for r in rows])
            if is_known.any():
                history[column.name] = Series.of(own[is_known], values[is_known])
            else:
                scores[column.name] = math.nan  # a run whose cells are all empty failed
        runs.append(
            ForeignRun(
                "table",
                table.path,
                _settings(roles, first),
                scores,
                history,
                status="complete" if roles.status is None else status_of(str(roles.status.values[last] or "")),
                place=f"from line {table.first_line + first}",
                clock="epoch" if "epoch" in roles.step.name.lower() else "step",
                seconds=math.nan if roles.seconds is None else _seconds(roles.seconds.values[last]),
            )
        )
    return sorted(runs, key=lambda run: int(run.place.removeprefix("from line ")))


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, float) and 0 <= value < 1e12 else math.nan


# ---- one column per seed


def _wide(table: Table, wanted: Wanted) -> list[ForeignRun] | None:
    """The runs of a table with a column for each seed; None for other tables."""
    if wanted.seed not in (None, "none") or any(names.role(name) == "seed" for name in table.columns):
        return None
    found: dict[str, list[tuple[int, Column]]] = {}
    for name, column in table.columns.items():
        match = _SEED_HEADING.fullmatch(name.strip())
        if match is not None and (column.is_numeric or all(map(is_missing, column.values))):
            found.setdefault(match["score"], []).append((int(match["seed"]), column))
    found = {
        score: columns
        for score, columns in found.items()
        if len(columns) > 1 and (score == "" or names.direction(score) is not None or score == wanted.score)
    }
    if not found:
        return None
    used = {column.name for columns in found.values() for _, column in columns}
    if not (any(score != "" for score in found) or wanted.score is not None):
        shown = ", ".join(list(used)[:4])
        raise ReadError(
            f"{table.path}: its columns {shown} look like a column for each seed, and nothing says what they score: "
            "name it and its direction, such as --score accuracy:max or --score loss:min"
        )
    roles = _Roles()
    rest = [c for name, c in table.columns.items() if name not in used]
    roles.settings = [
        c for c in rest if names.role(c.name) not in ("nothing", "step", "status") or c.name in (wanted.arms or ())
    ]
    return [run for row in range(table.n_rows) for run in _wide_row(table, roles, row, found, wanted)]


def _wide_row(
    table: Table, roles: _Roles, row: int, found: dict[str, list[tuple[int, Column]]], wanted: Wanted
) -> list[ForeignRun]:
    by_seed: dict[int, dict[str, float]] = {}
    for score, columns in found.items():
        for seed, column in columns:
            scores = by_seed.setdefault(seed, {})
            if not is_missing(column.values[row]):
                scores[score or wanted.score or "score"] = float(column.values[row])
    settings = _settings(roles, row)
    line = f"line {table.first_line + row}"
    return [
        ForeignRun("table", table.path, settings | {"seed": seed}, scores, place=f"{line}, seed {seed}")
        for seed, scores in by_seed.items()
    ]


# ---- one column per arm


def _by_arm(table: Table, wanted: Wanted) -> list[ForeignRun] | None:
    """The runs of a table with a row for each seed and a column for each arm; None for other tables.

    `--score` names what the columns hold, since no column does. With `--score acc` the columns `acc_base` and `acc_new`
    are the arms base and new, and other columns are ignored; else all columns of numbers without a role are arms.
    """
    if wanted.arms not in (None, (ARM,)) or wanted.score in table.columns or ARM in table.columns:
        return None
    seed = table.columns.get(wanted.seed) if wanted.seed is not None else _seed_of(table)
    if seed is not None and len(set(seed.values)) < table.n_rows:
        return None
    arms = _arm_columns(
        [c for c in table.columns.values() if c is not seed and names.role(c.name) != "nothing"], wanted
    )
    if len(arms) < 2:
        return None
    if wanted.score is None:
        more = "" if seed is not None else ", and --seed none, since no column names the seeds"
        raise ReadError(
            f"{table.path}: its columns {', '.join(list(arms)[:4])} look like a column for each arm, and nothing says "
            f"what they score: name it and its direction, such as --score accuracy:max or --score loss:min{more}"
        )
    return [
        ForeignRun(
            "table",
            table.path,
            {ARM: arm} | ({} if seed is None else {seed.name: plain(seed.values[row])}),
            {wanted.score: float(column.values[row])},
            place=f"line {table.first_line + row}, {arm}",
        )
        for arm, column in arms.items()
        for row in range(table.n_rows)
        if column.values[row] is not None
    ]


def _seed_of(table: Table) -> Column | None:
    known = [c for c in table.columns.values() if names.role(c.name) == "seed"]
    return min(known, key=lambda c: names.seed_rank(c.name), default=None)


def _arm_columns(columns: list[Column], wanted: Wanted) -> dict[str, Column]:
    """The columns that are arms, by the arms' names; none if there are other columns."""
    if wanted.score is not None:
        score = re.escape(wanted.score)
        found = {
            c.name: re.fullmatch(rf"{score}[\W_]+(.+)|(.+?)[\W_]+{score}", c.name) for c in columns if c.is_numeric
        }
        named = {m[1] or m[2]: c for c in columns if (m := found.get(c.name)) is not None}
        if len(named) > 1 and all(c.is_numeric or names.role(c.name) for c in columns):
            return named
    is_arm = [
        c.is_numeric
        and names.role(c.name) == ""
        and names.direction(c.name) is None
        and not names.is_hyperparameter(c.name)
        and re.fullmatch(r"\D+.*", c.name) is not None
        for c in columns
    ]
    return {c.name: c for c in columns} if all(is_arm) else {}
