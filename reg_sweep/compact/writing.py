"""Writes the compact networks of runs into their directories, for one run or for all runs of an arm."""

import copy
import hashlib
import importlib
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.config.schema import DataConfig
from reg_sweep.runs.files import staged
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import MAX_RECORD, WEIGHTS_FILE, RecordError
from reg_sweep.runs.validation import check, one_line, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from torch.fx import GraphModule

    from reg_sweep.compact.measure import Latency
    from reg_sweep.compact.removal import Compacted

SCHEMA = 2
FOLDER = "compact"  # in the run's directory
RECORD_FILE = "compact.json"
PROGRAM_FILE, ONNX_FILE = "program.pt2", "model.onnx"
SECONDS = 1.0  # per latency of each network of an arm


def compact_run(directory: Path, *, onnx: bool = False, seconds: float = 2.0, again: bool = False) -> str:
    """Writes the compact network of a run into its folder `compact`; returns a summary as lines of text.

    Raises:
        ConfigError: there is no finished run; it has no channel that can be removed; the smaller network computes
            something different; or there is a damaged record of a compact network. Nothing is written in these cases.
        DataError: the test images are missing.
        RecordError: the run's record can't be read.
    """
    from reg_sweep.training.checkpoint import load_model

    model = load_model(directory, "cpu")
    digest = hashlib.sha256((directory / WEIGHTS_FILE).read_bytes()).hexdigest()
    target = directory / FOLDER
    if (target / RECORD_FILE).exists() and not again:
        before = read_compact_record(target)
        if (
            before.get("weights_sha256") == digest
            and before["schema"] == SCHEMA
            and (not onnx or before.get("onnx") == ONNX_FILE)
        ):
            return f"{target} already has the compact network of these weights (--again replaces it)\n{_text(before)}"
    if onnx:
        _check_onnx()
    found, batches = _compact(directory, model)
    x = batches[0][:2]
    record = _record(directory, model, found, x, digest, seconds)
    programs = _programs(model, found.model, x)
    if not isinstance(programs, str):
        record["latencies"] += _folded_latencies(model, programs, x, seconds)
    with staged(target, RECORD_FILE) as folder:
        record["sizes"]["compact"]["file_bytes"] = _write_weights(found.model, folder)
        record["program"] = _write_program(programs, found.model, batches[0], folder)
        record["onnx"] = _write_onnx(found.model, batches[0], folder) if onnx else None
        (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return f"{_text(record)}\nwritten   {target}"


def _compact(directory: Path, model: "nn.Module") -> "tuple[Compacted, list[Tensor]]":
    from reg_sweep.compact.removal import CompactError, compact
    from reg_sweep.training.augmentation import batches
    from reg_sweep.training.data import load_data
    from reg_sweep.training.evaluation import EVAL_BATCH

    record = read_record(directory, raw=True)
    data = load_data(DataConfig(**record["config"]["data"]))
    if record["data"] and record["data"]["fingerprint"] != data.fingerprint:
        raise ConfigError(
            f"{directory} must be compared on its own test images ({record['data']['fingerprint']}), "
            f"got {data.source} {data.fingerprint}: set REG_SWEEP_DATA to the folder that holds them"
        )
    x = [images for images, _ in batches(data.test, data.mean, data.std, EVAL_BATCH)]
    try:
        return compact(model, x[0][:2], x), x
    except CompactError as error:
        raise CompactError(f"{directory}: the {error}") from None


def _record(
    directory: Path, model: "nn.Module", found: "Compacted", example: "Tensor", digest: str, seconds: float
) -> dict[str, Any]:
    from reg_sweep.compact.measure import latencies, sizes
    from reg_sweep.training import provenance

    shape = tuple(example.shape[1:])
    return {
        "schema": SCHEMA,
        "weights_sha256": digest,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
        "in_shape": list(shape),
        "n_removed": found.n_removed,
        "difference": found.difference,
        "kept": found.kept,
        "layers": [
            {"name": c.name, "kind": c.kind, "inputs": list(c.inputs), "outputs": list(c.outputs)} for c in found.layers
        ],
        "sizes": {
            "dense": sizes(model, example, (directory / WEIGHTS_FILE).stat().st_size),
            "compact": sizes(found.model, example, 0),
        },
        "latencies": latencies(model, found.model, shape, seconds),
    }


# ---- the files


def read_compact_record(folder: Path) -> dict[str, Any]:
    """Reads the record of the compact network in `folder`, which is a run's folder `compact`.

    Raises:
        ConfigError: it is damaged.
    """
    from reg_sweep.compact.measure import AnyCompactRecord, CompactRecord

    path = folder / RECORD_FILE
    try:
        record = read_json(path, MAX_RECORD, raw=True)
        check(record, CompactRecord if record.get("schema") == SCHEMA else AnyCompactRecord)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} must be the record of a compact network, got a damaged file ({one_line(error)}): "
            f"python -m reg_sweep.compact {quote(str(folder.parent))} --again replaces it"
        ) from None
    return record


def _write_weights(model: "nn.Module", folder: Path) -> int:
    from reg_sweep.runs.arrays import write_weights

    write_weights(folder, {name: t.detach().cpu().numpy() for name, t in model.state_dict().items()})
    return (folder / WEIGHTS_FILE).stat().st_size


@contextmanager
def _quiet() -> "Iterator[None]":
    """Hides the warnings of exporters, which are about their internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _programs(dense: "nn.Module", smaller: "nn.Module", x: "Tensor") -> "tuple[GraphModule, GraphModule] | str":
    """Both networks with their batch norms folded into other layers, or the reason why torch.export failed."""
    import torch

    from reg_sweep.compact.folding import folded

    made = []
    for model in (dense, smaller):
        memory_format = torch.channels_last if getattr(dense, "channels_last", False) else torch.contiguous_format
        laid_out, images = copy.deepcopy(model), x.contiguous(memory_format=memory_format)
        laid_out.to(memory_format=memory_format)
        with _quiet():
            try:
                made.append(folded(laid_out, images))
            except Exception as error:  # the exporter may raise anything for a model
                return f"not written: {' '.join(str(error).split())[:200]}"
    return made[0], made[1]


def _folded_latencies(
    model: "nn.Module", programs: "tuple[GraphModule, GraphModule]", x: "Tensor", seconds: float
) -> "list[Latency]":
    from reg_sweep.compact.measure import latencies

    is_last = getattr(model, "channels_last", False)
    return latencies(*programs, tuple(x.shape[1:]), seconds, "folded", channels_last=is_last)


def _write_program(
    programs: "tuple[GraphModule, GraphModule] | str", model: "nn.Module", x: "Tensor", folder: Path
) -> str:
    """Writes and checks a torch.export program with folded batch norms, for batches of any size.

    Returns its file name, with the difference if the check failed, or the reason why it was not written.
    """
    import torch

    from reg_sweep.compact.folding import BATCHES

    if isinstance(programs, str):
        return programs
    with _quiet():
        try:
            program = torch.export.export(programs[1], (x[:2],), dynamic_shapes=BATCHES)
            torch.export.save(program, folder / PROGRAM_FILE)
            with torch.no_grad():
                difference = float((program.module()(x[:5]) - model(x[:5])).abs().max())
        except Exception as error:  # the exporter may raise anything for a model
            (folder / PROGRAM_FILE).unlink(missing_ok=True)
            return f"not written: {' '.join(str(error).split())[:200]}"
    return PROGRAM_FILE if difference <= 1e-4 else f"{PROGRAM_FILE}, whose outputs differ by {difference:.1g}"


def _check_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise ConfigError(f"--onnx needs the package {package}: pip install 'reg_sweep[onnx]'") from None


def _write_onnx(model: "nn.Module", x: "Tensor", folder: Path) -> str:
    import torch

    with _quiet():
        try:
            torch.onnx.export(
                model,
                (x[:2],),
                folder / ONNX_FILE,
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except Exception as error:  # the exporter may raise anything for a model
            (folder / ONNX_FILE).unlink(missing_ok=True)
            return f"not written: {' '.join(str(error).split())[:200]}"
    return ONNX_FILE


# ---- the result as text


def _text(record: dict[str, Any]) -> str:
    dense, smaller = record["sizes"]["dense"], record["sizes"]["compact"]
    lines = [
        f"{'layer':<28} {'inputs':>12} {'outputs':>12}",
        *(
            f"{layer['name']:<28} {_change(layer['inputs']):>12} {_change(layer['outputs']):>12}"
            for layer in record["layers"]
        ),
        f"removed   {record['n_removed']} channels; outputs differ by at most {record['difference']:.1g}",
        *(f"kept      {why}" for why in record["kept"]),
        *(
            f"{what:<9} {dense[key]:,} -> {smaller[key]:,} ({smaller[key] / dense[key]:.0%})"
            for what, key in (("params", "n_parameters"), ("mult-adds", "multiply_adds"), ("bytes", "file_bytes"))
        ),
        *(
            f"latency   batch {t['batch']:>3}, {t['threads']} thread{'s' * (t['threads'] > 1)}, {t['clock']} time: "
            f"{1e3 * t['dense_s']:.3g} -> {1e3 * t['compact_s']:.3g} ms, {t['ratio']:.2f} times as fast"
            f"{', norms folded in both' if t['norms'] == 'folded' else ''}"
            for t in record["latencies"]
        ),
        f"program   {record['program']}",
    ]
    if record.get("onnx"):
        lines.append(f"onnx      {record['onnx']}")
    return "\n".join(lines)


def _change(pair: Sequence[int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"


def compact_arm(directories: Sequence[Path], seconds: float = SECONDS) -> str:
    """Writes the compact network of each run; returns a text with their multiply-adds, speed, and the best on val.

    If a run has no compact network, the text has the reason.
    """
    lines: list[str] = []
    records: dict[Path, dict[str, Any]] = {}
    for directory in directories:
        try:
            compact_run(directory, seconds=seconds)
        except (ConfigError, DataError, RecordError, OSError) as error:
            lines.append(f"no compact network: {error}")
            continue
        records[directory] = read_compact_record(directory / FOLDER)
    if records:
        shares = [100 * share(record) for record in records.values()]
        ratios = [speed(record) for record in records.values()]
        best = max(records, key=_on_val)
        lines.append(
            f"compact networks of {len(records)} seeds: {_spread(shares, '.0f')}% of the multiply-adds,"
            f" {_spread(ratios, '.2f')} times as fast (batch 128, one thread)\n"
            f"the best of them on val: {os.path.relpath(best / FOLDER)}"
        )
    return "\n".join(lines)


def share(record: dict[str, Any]) -> float:
    """The compact network's multiply-adds as a share of the dense one's."""
    dense, smaller = (record["sizes"][which]["multiply_adds"] for which in ("dense", "compact"))
    return float(smaller / dense)


def speed(record: dict[str, Any], norms: str = "kept", batch: int = 128) -> float:
    """The compact network's speed relative to the dense one's, on one thread, by the process's own time."""
    wanted = (norms, batch, 1, "cpu")
    found = (t for t in record["latencies"] if (t["norms"], t["batch"], t["threads"], t["clock"]) == wanted)
    return next((float(t["ratio"]) for t in found), math.nan)


def _on_val(directory: Path) -> float:
    last = read_record(directory)["last"]
    return (None if last is None else last["val_accuracy"]) or 0.0


def _spread(values: Sequence[float], form: str) -> str:
    """The median and the range as text, such as '30 (28 to 33)'."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}}" if len(values) == 1 else f"{middle:{form}} ({low:{form}} to {high:{form}})"
