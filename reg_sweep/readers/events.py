"""TensorBoard's event files and W&B's offline runs: logs of protobuf messages, read without either program.

TensorBoard writes TFRecords (length, its checksum, data, its checksum) of `Event`; W&B writes LevelDB's log format
(32 KiB blocks of fragments) of `Record`. Both readers stop at an incomplete end. Only the fields below are decoded, by
their numbers in event.proto, summary.proto, plugin_data.proto (hparams) and wandb_internal.proto.
"""

import json
import math
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reg_sweep.readers.foreign import (
    MAX_FILE,
    MAX_METRICS,
    ForeignRun,
    ReadError,
    Series,
    flat_settings,
    number,
    plain,
    text,
)
from reg_sweep.readers.names import path_settings
from reg_sweep.runs import validation
from reg_sweep.runs.record import Status
from reg_sweep.runs.validation import ValidationError

Fields = dict[int, list[Any]]
MAX_POINTS = 2_000_000  # of all metrics of a run
_LARGEST_MESSAGE = 64_000_000
_BLOCK = 32_768


# ---- protobuf


def fields(data: bytes | memoryview) -> Fields:
    """A message's fields by number: integers for varints, bytes for all others.

    Raises:
        ValueError: it is not a protobuf message.
    """
    found: Fields = defaultdict(list)
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind, size = key & 7, 0
        if kind == 0:
            value, at = _varint(data, at)
            found[key >> 3].append(value)
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")
        if at + size > end:
            raise ValueError("a torn protobuf message")
        found[key >> 3].append(bytes(data[at : at + size]))
        at += size
    return found


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError("a torn number")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(found: Fields, number_of: int) -> str:
    value = found.get(number_of, [b""])[-1]
    return text(value.decode(errors="replace")) if isinstance(value, bytes) else ""


def _message(found: Fields, number_of: int) -> Fields:
    value = found.get(number_of, [b""])[-1]
    return fields(value) if isinstance(value, bytes) else {}


def _content(path: Path) -> bytes:
    try:
        return validation.read_bytes(path, MAX_FILE)
    except ValidationError as error:
        raise ReadError(f"{path}: {error}") from None
    except OSError as error:
        raise ReadError(f"{path}: unreadable ({error.strerror or error})") from None


# ---- TensorBoard


def tensorboard_run(folder: Path, files: Sequence[Path], root: Path) -> ForeignRun | None:
    """The run of the event files in a folder; None if they hold no scalar and no settings.

    Settings are the hparams plugin's, else those that the path names. With hparams, a session without an end is
    running, and one that did not succeed failed.

    Raises:
        ReadError: a file can't be read, or is not an event file.
    """
    log = _Log()
    for path in files:
        for data in _tf_records(path):
            try:
                log.add(fields(data))
            except (ValueError, struct.error):
                continue  # a message that another program wrote
    if not log.points and not log.settings:
        return None
    history = {tag: Series.of(*map(list, zip(*points, strict=True))) for tag, points in log.points.items()}
    settings = log.settings or path_settings(folder.relative_to(root) / "events")
    return ForeignRun(
        "TensorBoard", folder, settings, history=history, status=log.status, seconds=log.seconds, clock="step"
    )


class _Log:
    """Facts from the events of a run so far."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.settings: dict[str, Any] = {}
        self.status: Status = "complete"
        self.n_points = 0
        self.times: list[float] = []

    @property
    def seconds(self) -> float:
        """From the first to the last event with a value."""
        return max(self.times) - min(self.times) if self.times else math.nan

    def add(self, event: Fields) -> None:
        """Adds an Event: step = 2, summary = 5."""
        step = _signed(event[2][-1]) if event.get(2) and isinstance(event[2][-1], int) else 0
        for summary in event.get(5, ()):
            for value in fields(summary).get(1, ()) if isinstance(summary, bytes) else ():
                self._add_value(fields(value), step, event)

    def _add_value(self, value: Fields, step: int, event: Fields) -> None:
        """Adds a Summary.Value: tag = 1, simple_value = 2, tensor = 8, metadata = 9."""
        tag = _text(value, 1)
        plugin = _message(_message(value, 9), 1)  # plugin_data: name = 1, content = 2
        if _text(plugin, 1) == "hparams":
            self._add_session(_message(plugin, 2))
            return
        score = _scalar(value, _text(plugin, 1))
        if score is None or (tag not in self.points and len(self.points) >= MAX_METRICS):
            return
        self.n_points += 1
        if self.n_points <= MAX_POINTS:
            self.points.setdefault(tag, []).append((float(step), score))
        if event.get(1) and isinstance(event[1][-1], bytes):
            time = struct.unpack("<d", event[1][-1])[0]
            self.times += [time] if 0 <= time < 1e12 else []

    def _add_session(self, data: Fields) -> None:
        """Adds HParamsPluginData: session_start_info = 3 (hparams = 1), session_end_info = 4 (status = 1)."""
        if data.get(3):
            self.status = "running"
            for entry in _message(data, 3).get(1, ()):
                pair = fields(entry)
                self.settings[_text(pair, 1)] = _proto_value(_message(pair, 2))
        if data.get(4):
            end = _message(data, 4).get(1, [1])[-1]
            ended: dict[int, Status] = {0: "complete", 1: "complete", 3: "running"}
            self.status = ended.get(end, "failed")


def _scalar(value: Fields, plugin: str) -> float | None:
    """A simple value, or a scalar tensor: dtype = 1, content = 4, float_val = 5, double_val = 6."""
    if value.get(2) and isinstance(value[2][-1], bytes) and len(value[2][-1]) == 4:
        return float(struct.unpack("<f", value[2][-1])[0])
    if value.get(8) and plugin in ("scalars", ""):
        tensor = _message(value, 8)
        for number_of, form in ((4, None), (5, "<f"), (6, "<d")):
            data = tensor.get(number_of, [b""])[-1]
            form = form or {4: "<f", 8: "<d"}.get(len(data) if isinstance(data, bytes) else 0, "")
            if isinstance(data, bytes) and form and len(data) == struct.calcsize(form):
                return float(struct.unpack(form, data)[0])
    return None


def _proto_value(value: Fields) -> Any:
    """A google.protobuf.Value: number = 2, string = 3, bool = 4."""
    if value.get(2) and isinstance(value[2][-1], bytes) and len(value[2][-1]) == 8:
        return plain(struct.unpack("<d", value[2][-1])[0])
    if value.get(3):
        return _text(value, 3)
    return bool(value[4][-1]) if value.get(4) else None


def _tf_records(path: Path) -> Iterator[memoryview]:
    content = memoryview(_content(path))
    at = 0
    while at + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        if size > _LARGEST_MESSAGE:
            if at == 0:
                raise ReadError(f"{path}: must be an event file of TensorBoard, got something else")
            return
        if at + 12 + size > len(content):
            return  # torn: still being written, or cut off
        yield content[at + 12 : at + 12 + size]
        at += 16 + size


# ---- W&B


def wandb_run(path: Path) -> ForeignRun | None:
    """The run in a run-ID.wandb file; None if it holds no settings and no history.

    One without an exit crashed, or is still being written; one whose exit code is not 0 failed.

    Raises:
        ReadError: it is not such a file.
    """
    history = _History(ForeignRun("W&B", path, {}, status="failed", message="it has no end: crashed, or still running"))
    for data in _level_records(path):
        try:
            history.add(fields(data))
        except (ValueError, struct.error, TypeError):
            continue  # from a newer version, or damaged: the other records still count
    run = history.run
    run.history = {name: Series.of(*map(list, zip(*its, strict=True))) for name, its in history.points.items()}
    run.scores = {name: value for name, value in run.scores.items() if name not in run.history}
    return run if run.settings or history.points else None


class _History:
    """Facts from the records of a run so far."""

    def __init__(self, run: ForeignRun) -> None:
        self.run = run
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.n_points = self.n_rows = 0

    def add(self, record: Fields) -> None:
        """Adds a Record: history = 2, summary = 3, config = 5, run = 17, exit = 18."""
        for row in record.get(2, ()):
            self._add_row(dict(_items(fields(row), 1)))
        for summary in record.get(3, ()):
            found = ((name, number(value)) for name, value in _items(fields(summary), 1))
            self.run.scores |= {n: v for n, v in found if v is not None and not n.startswith("_")}
        started = _message(record, 17)
        for config in (*record.get(5, ()), *started.get(4, ())):
            _add_config(self.run, fields(config))
        named = (("group", _text(started, 6)), ("name", _text(started, 8)))
        self.run.settings |= {key: value for key, value in named if value and key not in self.run.settings}
        for end in record.get(18, ()):
            code = fields(end).get(1, [0])[-1]
            self.run.status, self.run.message = ("complete", "") if code == 0 else ("failed", f"exit code {code}")

    def _add_row(self, values: dict[str, Any]) -> None:
        step = number(values.get("_step"))
        step = float(self.n_rows) if step is None else step
        self.n_rows += 1
        for name, value in values.items():
            score = number(value)
            if score is None or name.startswith("_") or (name not in self.points and len(self.points) >= MAX_METRICS):
                continue
            self.n_points += 1
            if self.n_points <= MAX_POINTS:
                self.points.setdefault(name, []).append((step, score))


def _add_config(run: ForeignRun, config: Fields) -> None:
    found = {name: value for name, value in _items(config, 1) if not name.startswith("_")}
    run.settings |= flat_settings(found)


def _items(message: Fields, number_of: int) -> Iterator[tuple[str, Any]]:
    """The names and values of items: key = 1, nested_key = 2, value_json = 16."""
    for item in message.get(number_of, ()):
        found = fields(item)
        nested = [part.decode(errors="replace") for part in found.get(2, ()) if isinstance(part, bytes)]
        name = text(".".join(nested)) if nested else _text(found, 1)
        raw = found.get(16, [b"null"])[-1]
        if isinstance(raw, bytes) and len(raw) < 1_000_000:
            try:
                yield name, json.loads(raw)
            except (ValueError, RecursionError):
                continue


def _level_records(path: Path) -> Iterator[bytes]:
    """The records of a LevelDB log: of type 1 whole, else first, middle and last fragments (2, 3, 4)."""
    content = _content(path)
    if content[:4] != b":W&B":
        raise ReadError(f"{path}: must be an offline run of W&B, got something else")
    at, parts = 7, list[bytes]()
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        data = content[at + 7 : at + 7 + size]
        at += 7 + size
        if len(data) < size or kind not in (1, 2, 3, 4):
            return
        if kind in (1, 2):
            parts = []
        parts.append(data)
        if kind in (1, 4) and sum(map(len, parts)) <= _LARGEST_MESSAGE:
            yield b"".join(parts)


def is_hparams_folder(folder: Path) -> bool:
    """Whether SummaryWriter.add_hparams made the folder, below that of the run whose settings it holds."""
    return re.fullmatch(r"\d{9,11}\.\d+", folder.name) is not None
