"""CPU time of a study by part: training, evaluation and overhead.

python benchmarks/overhead.py study=l1_search data=mnist_5k [OVERRIDE ...]

Runs `python -m reg_sweep.train` with these overrides, in this process and in the workers that the study starts, and
prints the CPU seconds of each part over all processes. It needs a new `name=`, because a finished study is not trained
again. CPU time is used because other programs on the machine disturb it least.
"""

import atexit
import functools
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "REG_SWEEP_OVERHEAD"
spent: dict[str, float] = defaultdict(float)
test_labels: set[int] = set()
nested: list[float] = [0.0]  # for each timed call in progress: the CPU seconds of the timed calls inside it


def timed(owner: Any, name: str, part: str | Callable[..., str]) -> None:
    """Add a function's CPU time to a part of the study, without the timed functions that it calls."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        nested.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            took = time.process_time() - started
            spent[part if isinstance(part, str) else part(*args)] += took - nested.pop()
            nested[-1] += took

    setattr(owner, name, wrapper)


def evaluated_images(model: Any, split: Any, *rest: Any) -> str:
    """Name of the part that an evaluation belongs to."""
    return f"evaluation of {'test' if id(split.labels) in test_labels else 'val'} images"


def note_test_images(owner: Any) -> None:
    """Remember the test images that `load_data` returns, to distinguish them from val images."""
    load_data = owner.load_data

    def wrapper(*args: Any) -> Any:
        data = load_data(*args)
        test_labels.add(id(data.test.labels))
        return data

    owner.load_data = wrapper


def time_batches() -> None:
    """Time the batches of every epoch, from the switch to training mode to the switch back."""
    from reg_sweep.training import fit

    switch, began = fit.switch, []

    def wrapper(*args: Any, training: bool) -> None:
        switch(*args, training=training)
        if training:
            began.append((time.process_time(), nested[-1]))
        elif began:
            started, before = began.pop()
            took = time.process_time() - started
            spent["training"] += took - (nested[-1] - before)
            nested[-1] = before + took

    fit.switch = wrapper


def time_parts() -> None:
    """Time each part of a study, without importing anything that a study would not import."""
    from reg_sweep.search import sweep, trial, trial_queue
    from reg_sweep.search.compose import JobComposer
    from reg_sweep.training import checkpoint, data, fit, run

    spent["imports"] = time.process_time()
    timed(fit, "evaluate", evaluated_images)
    time_batches()
    for owner in (data, fit):
        timed(owner, "load_data", "loading images")
        note_test_images(owner)
    timed(fit, "prepare", "making the network")
    for owner, name in ((checkpoint, "save"), (fit, "append_metrics"), (run, "write_record"), (run, "_finish")):
        timed(owner, name, "records and checkpoints")
    timed(JobComposer, "load_sweep_config", "composing")
    for owner, name in (
        (trial_queue.TrialQueue, "take"),
        (trial.StudyTrial, "report"),
        (trial.StudyTrial, "should_prune"),
    ):
        timed(owner, name, "Optuna")
    timed(trial.JobTrial, "finish", "Optuna")
    timed(sweep, "write_report", "report")


def main() -> None:
    is_first = FOLDER_VARIABLE not in os.environ
    folder = Path(os.environ.setdefault(FOLDER_VARIABLE, tempfile.mkdtemp()))
    from reg_sweep.train import main as train

    time_parts()

    def write() -> None:
        spent["other"] = time.process_time() - sum(spent.values())
        (folder / f"{os.getpid()}.json").write_text(json.dumps(spent))
        if is_first:
            show(folder)

    atexit.register(write)
    train()


def show(folder: Path) -> None:
    """Print the parts of all processes, in seconds and as shares."""
    found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    parts = {part: sum(f.get(part, 0.0) for f in found) for part in {part for f in found for part in f}}
    used = os.times()
    workers = sum(parts.values()) - sum(spent.values())
    drawn = used.children_user + used.children_system - workers  # the processes that draw its figures
    parts["report"] = parts.get("report", 0.0) + drawn
    whole = sum(parts.values())
    print(f"{len(found)} processes, {whole:.1f} CPU seconds")
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"{seconds:8.1f} s  {seconds / whole:6.1%}  {part}")


if __name__ == "__main__":
    main()
