"""Text tables as columns: encodings, delimiters, and numbers as people write them."""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from reg_sweep.readers.foreign import MAX_FILE, MAX_TEXT, Floats, ReadError, number, plain, text
from reg_sweep.runs import validation
from reg_sweep.runs.validation import ValidationError, one_line

MAX_ROWS = 5_000_000
MAX_COLUMNS = 2_000
_CHUNK = 20_000
_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "-", "--", "–", "—", "na", "n/a", "#n/a", "none", "null", "<na>", "?", "."})
_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?\d{1,3}([,' \u00a0\u202f]\d{3})+(\.\d+)?")
_GROUPED_BY_POINT = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass
class Column:
    """A column: its numbers (n_rows,), or its plain values. A missing number is nan and marked in `is_missing`."""

    name: str
    values: list[Any]
    numbers: Floats | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether every known value is a number."""
        return self.numbers is not None

    def cell(self, row: int) -> Any:
        """The value in a row, counted from 0; None if it is missing."""
        return self.values[row]


@dataclass
class Table:
    """A table of a file: its columns by name, and the line of its first row. `noted`: a note for the reader."""

    path: Path
    columns: dict[str, Column]
    n_rows: int
    first_line: int = 2
    noted: str = ""


def read_table(path: Path) -> Table:
    """The table in a file: CSV, TSV or the like, JSON lines, a JSON list of objects, or Parquet.

    Raises:
        ReadError: it holds no table, or can't be read.
    """
    try:
        with validation.open_regular(path) as file:
            start = file.read(4)
        if start == b"PAR1":
            return _parquet(path)
        content = validation.read_bytes(path, MAX_FILE)
    except ValidationError as error:
        raise ReadError(f"{path}: {error}") from None
    except OSError as error:
        raise ReadError(f"{path}: unreadable ({error.strerror or error})") from None
    decoded, noted = _decoded(path, content)
    del content
    head = decoded[:2000].lstrip().lower()
    if head.startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
        raise ReadError(f"{path}: must hold a table, got a page of HTML or XML: export the table itself as CSV")
    if head.startswith(("{", "[")):
        return _json_rows(path, decoded, noted)
    return _delimited(path, decoded, noted)


def _decoded(path: Path, content: bytes) -> tuple[str, str]:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace"), ""
    try:
        found, noted = content.decode(), ""
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content.decode("cp1252", errors="replace")
        noted = f"{path}: line {line} is not UTF-8: the file was read as Windows-1252"
    if "\0" in found[:100_000]:
        raise ReadError(f"{path}: must hold a table, got binary data")
    return found, noted


# ---- CSV and its kin


def _delimited(path: Path, decoded: str, noted: str) -> Table:
    lines = decoded.splitlines(keepends=True) if "\r" in decoded and "\n" not in decoded else None
    source = io.StringIO(decoded, newline="") if lines is None else lines
    delimiter, is_spaced = _delimiter(decoded)
    csv.field_size_limit(1_000_000)
    rows = (
        csv.reader(source, delimiter=delimiter, skipinitialspace=True)
        if not is_spaced
        else iter(line.split() for line in decoded.splitlines())
    )
    try:
        names, first_line = _heading(path, rows)
        columns = _columns(names, rows, path, first_line, has_comma_decimals=delimiter != ",")
    except csv.Error as error:
        raise ReadError(f"{path}: must hold a table of text ({one_line(error)})") from None
    return Table(path, {c.name: c for c in columns}, len(columns[0].values), first_line, noted)


def _delimiter(decoded: str) -> tuple[str, bool]:
    """The delimiter, and whether spaces separate the cells instead.

    The delimiter splits all of the first lines into the same number of cells, else the first line into the most.
    """
    lines = [line for line in decoded[:20_000].splitlines()[:20] if line.strip() and not line.startswith("#")]
    if not lines:
        return ",", False
    found = {d: [len(next(csv.reader([line], delimiter=d), [])) - 1 for line in lines] for d in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda d: (found[d][0] > 0 and len(set(found[d])) == 1, found[d][0]))
    if found[best][0] > 0:
        return best, False
    return ",", len(lines[0].split()) > 1 and len({len(line.split()) for line in lines}) == 1


def _heading(path: Path, rows: Iterator[list[str]]) -> tuple[list[str], int]:
    """The names of the columns, made unique, and the line of the first row of values."""
    for line, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row) or (row[0].startswith("#") and len(row) == 1):
            continue
        if len(row) > MAX_COLUMNS:
            raise ReadError(f"{path}: must have at most {MAX_COLUMNS:,} columns, got {len(row):,}")
        names: list[str] = []
        for place, cell in enumerate(row, 1):
            name = text(cell.strip()) or ("unnamed: 0" if place == 1 else f"column {place}")
            while name in names:
                name = f"{name} (column {place})"
            names.append(name)
        numeric = [_PLAIN.fullmatch(cell.strip()) is not None for cell in row]
        if all(numeric) or len(row) == 1:
            what = "only numbers" if all(numeric) else f"the single column {names[0]!r}"
            raise ReadError(f"{path}: its first row must name the columns, got {what}: it is not a table of runs")
        return names, line
    raise ReadError(f"{path}: must hold a table, got no row")


def _columns(
    names: list[str], rows: Iterator[list[str]], path: Path, first_line: int, *, has_comma_decimals: bool
) -> list[Column]:
    raw: list[list[Any]] = [[] for _ in names]
    seen: dict[str, str] = {}
    n = 0
    while chunk := list(islice(rows, _CHUNK)):
        kept = [row for row in chunk if row and any(row)]
        n += len(kept)
        if n > MAX_ROWS:
            raise ReadError(f"{path}: must have at most {MAX_ROWS:,} rows, got more")
        for line, row in enumerate(kept, first_line + n - len(kept)):
            if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
                raise ReadError(
                    f"{path}, line {line}: must have at most {len(names)} cells, one for each name in the heading, got "
                    f"{len(row)}"
                )
        for i, column in enumerate(raw):
            column.extend(
                seen.setdefault(c, c) if len(c) < 40 else c for c in (r[i] if i < len(r) else "" for r in kept)
            )
        if len(seen) > 200_000:
            seen.clear()
    if n == 0:
        raise ReadError(f"{path}: must hold rows below its heading, got none")
    comma = _comma(path, names, raw) if has_comma_decimals else "group"
    return [_column(name, cells, comma) for name, cells in zip(names, raw, strict=True)]


def _comma(path: Path, names: list[str], raw: list[list[str]]) -> str:
    """Meaning of a comma in a number here: 'decimal' or 'group'."""
    unclear = ""
    for name, cells in zip(names, raw, strict=True):
        with_comma = [c.strip() for c in cells[:10_000] if "," in c]
        if any(_DECIMAL_COMMA.fullmatch(c) and not _AMBIGUOUS.fullmatch(c) for c in with_comma):
            return "decimal"
        if any(_GROUPED.fullmatch(c) and not _AMBIGUOUS.fullmatch(c) for c in with_comma):
            return "group"
        unclear = unclear or next((f"{c!r} in column {name}" for c in with_comma if _AMBIGUOUS.fullmatch(c)), "")
    if unclear:
        raise ReadError(
            f"{path}: a comma in a number must be a decimal comma or group thousands, got {unclear}, which "
            "can be read in two ways: write the number with a point, or without a comma"
        )
    return "group"


def is_missing(cell: object) -> bool:
    """Whether a cell among numbers stands for a missing one: empty, a dash, or a word such as n/a."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING)


def _column(name: str, cells: list[str], comma: str) -> Column:
    """Numbers if every known cell is one, else texts. Among texts 'none' and 'na' are names, and only '' is missing."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        pass
    else:
        return Column(name, _shared(numbers.tolist()), numbers)
    values: list[Any] = []
    known: dict[str, Any] = {}
    for cell in cells:
        found = known.get(cell, known)
        if found is known:
            found = known[cell] = _value(cell.strip(), comma)
        values.append(found)
    is_numeric = any(isinstance(v, float) for v in known.values()) and not any(
        isinstance(v, str) for v in known.values()
    )
    if is_numeric:
        numbers = np.array([math.nan if v is None else v for v in values], np.float64)
        return Column(name, values, numbers)
    return Column(name, [c if isinstance(c, str) else text(cells[i].strip()) or None for i, c in enumerate(values)])


def _shared(values: list[float]) -> list[float]:
    """The values with equal ones as one object: a tenth of the memory where a column repeats itself."""
    seen: dict[float, float] = {}
    return [seen.setdefault(v, v) for v in values]


def _value(cell: str, comma: str) -> Any:
    if cell.lower() in _MISSING:
        return None
    found = _number(cell[:-1].strip() if cell.endswith("%") else cell, comma)
    return cell[:MAX_TEXT] if found is None else found


def _number(cell: str, comma: str) -> float | None:
    cell = cell.replace("−", "-")
    if comma == "decimal":
        if _GROUPED_BY_POINT.fullmatch(cell) and "," in cell:
            cell = cell.replace(".", "").replace(",", ".")
        elif _DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
    elif _GROUPED.fullmatch(cell):
        cell = re.sub("[,' \u00a0\u202f]", "", cell)
    return float(cell) if _PLAIN.fullmatch(cell) else None


# ---- JSON and Parquet


def _json_rows(path: Path, decoded: str, noted: str) -> Table:
    rows: list[dict[str, Any]] = []
    is_list = decoded.lstrip().startswith("[")
    try:
        if is_list:
            found = json.loads(decoded)
            rows = [row for row in found if isinstance(row, dict)]
            if len(rows) < len(found):
                raise ReadError(f"{path}: must be a list of objects, one per run, got other values in it")
        else:
            rows = _json_lines(path, decoded)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path}: must hold JSON, or JSON lines ({one_line(error)})") from None
    if not rows:
        raise ReadError(f"{path}: must hold rows, got none")
    return rows_table(path, rows, 1, noted)


def _json_lines(path: Path, decoded: str) -> list[dict[str, Any]]:
    """The objects, one per line, without a torn last line. One object over several lines is one row, or columns."""
    rows: list[dict[str, Any]] = []
    lines = decoded.splitlines()
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if not rows and n < len(lines):
                return _one_object(path, json.loads(decoded))
            if n == len(lines):
                break
            raise ReadError(f"{path}, line {n}: must be JSON, got {line.strip()[:60]!r}") from None
        if not isinstance(row, dict):
            raise ReadError(f"{path}, line {n}: must be an object, got {line.strip()[:60]!r}")
        rows.append(row)
    return _one_object(path, rows[0]) if len(rows) == 1 else rows


def _one_object(path: Path, found: Any) -> list[dict[str, Any]]:
    """The rows of one object: its lists are columns; without lists it is one row."""
    if not isinstance(found, dict):
        raise ReadError(f"{path}: must hold objects, got {type(found).__name__}")
    lists = {k: v for k, v in found.items() if isinstance(v, list)}
    lengths = {len(v) for v in lists.values()}
    if lists and len(lists) == len(found) and len(lengths) == 1:
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    return [found]


def rows_table(path: Path, rows: Sequence[dict[str, Any]], first_line: int = 1, noted: str = "") -> Table:
    """A table of objects; nested ones become dotted columns, and a key that a row lacks is missing there.

    Raises:
        ReadError: there are too many columns.
    """
    columns: dict[str, list[Any]] = {}
    for n, row in enumerate(rows):
        for name, value in _flat(row):
            column = columns.setdefault(name, [])
            column.extend([None] * (n - len(column)))
            if len(column) == n:
                column.append(value)
        if len(columns) > MAX_COLUMNS:
            raise ReadError(f"{path}: must have at most {MAX_COLUMNS:,} columns, got more")
    made = []
    for name, values in columns.items():
        values.extend([None] * (len(rows) - len(values)))
        made.append(_of_values(name, values))
    return Table(path, {c.name: c for c in made}, len(rows), first_line, noted)


def _flat(row: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{text(key)}"
        if isinstance(value, dict) and depth < 8:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, value


def _of_values(name: str, values: list[Any]) -> Column:
    found = [None if v is None else number(v) for v in values]
    if all(f is not None or v is None for f, v in zip(found, values, strict=True)) and any(
        f is not None for f in found
    ):
        numbers = np.array([math.nan if f is None else f for f in found], np.float64)
        return Column(name, found, numbers)
    return Column(name, [plain(v) for v in values])


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ReadError(
            f"{path}: Parquet needs pyarrow: pip install 'reg_sweep[parquet]', or export it as CSV"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > MAX_ROWS or file.metadata.num_columns > MAX_COLUMNS:
            raise ReadError(f"{path}: must have at most {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns")
        return rows_table(path, file.read().to_pylist(), 1)
    except (ArrowException, OSError, ValueError) as error:
        raise ReadError(f"{path}: must be a Parquet file ({one_line(error)})") from None
