"""Time from the command to the verdict on six arms: reg_sweep, and 20 seeds x 40 epochs of a straightforward loop.

python benchmarks/verdict.py DATA_ROOT [--rounds 3] [--batches 60] [--clock] [--studies FILE ...] [OVERRIDE ...]

DATA_ROOT contains MNIST/raw in torchvision's layout. OVERRIDE are overrides of a run, by default experiment=fast. The
two sides alternate in each round, each in its own process with one thread, and CPU seconds are counted, because other
programs on the machine disturb them least. With `--clock`, on an idle machine, wall time is measured: the loop has all
cores, and one run per core trains at once, with one thread each. Both sides are extrapolated from some batches of 128
images: the loop in epoch.py to its 40 epochs of 60,000 images, ours to a whole run on 50,000 images, from its start to
the evaluation of the test images, with 10,000 val images after each epoch. The number of runs comes from two
studies with stored records: exercise A's six arms with lambdas chosen on val, and with those that exercise B published.
Each study trains until all arms are decided or have the largest number of seeds. The report is not included;
benchmarks/report.py measures it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epoch import plain_loop

from reg_sweep.runs.study import read_study

ROOT = Path(__file__).parents[1]
STUDIES = [ROOT / "reproduction/records" / name / "study.json" for name in ("exercise_a", "exercise_a_published")]
N_TRAIN, N_VAL = 50_000, 10_000
N_ARMS, N_SEEDS, N_EPOCHS = 6, 20, 40  # the loop trains every arm on all seeds, without early stops


@dataclass(frozen=True)
class Asked:
    """The measurement: an epoch of the loop or a run of ours, in CPU seconds or wall time."""

    root: str
    n_batches: int
    by_clock: bool
    overrides: tuple[str, ...]

    @property
    def clock(self) -> Callable[[], float]:
        """The clock to read."""
        return time.perf_counter if self.by_clock else time.process_time


def side(name: str, asked: Asked) -> float:
    """Seconds for an epoch of the loop or for a run of ours, measured in separate processes."""
    n_at_once = os.cpu_count() or 1 if asked.by_clock and name == "run" else 1
    own = ["--side", name, "--batches", str(asked.n_batches), *(["--clock"] if asked.by_clock else [])]
    command = [sys.executable, __file__, asked.root, *own, *asked.overrides]
    threads = {} if asked.by_clock and name == "loop" else {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True) for _ in range(n_at_once)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{name} failed")
    return statistics.mean(float(text.splitlines()[-1]) for text in printed) / n_at_once


def our_run(asked: Asked) -> float:
    """Seconds for a run, extrapolated from epochs of `n_batches` batches of 128 images.

    The val set is reduced in proportion, so that an epoch and its evaluation are scaled together.
    """
    began = asked.clock() if asked.by_clock else 0.0  # CPU time starts at 0 with the process
    from hydra import compose, initialize_config_dir

    from reg_sweep import fit, train

    n_train = 128 * asked.n_batches
    sizes = [f"data.train_size={n_train}", f"data.val_size={n_train * N_VAL // N_TRAIN}", f"data.root={asked.root}"]
    overrides = [*asked.overrides, *sizes, "runtime.threads=1", "test_epochs=last", "name=timed"]
    with initialize_config_dir(str(train.CONF), version_base="1.3"):
        run = train.to_run_config(compose("config", overrides))
    n_epochs, run.epochs = run.epochs, 3
    ends: list[float] = []
    fit(run, on_epoch=lambda row: bool(ends.append(asked.clock() - began)), progress=False)
    epoch, with_test = ends[1] - ends[0], ends[2] - ends[1]
    start = ends[0] - epoch  # imports, images, the network, and a first epoch's warm-up
    return start + n_epochs * epoch * N_TRAIN / n_train + with_test - epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("overrides", nargs="*", default=["experiment=fast"])
    parser.add_argument("--studies", nargs="+", type=Path, default=STUDIES)
    parser.add_argument("--side", choices=("loop", "run"), help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    asked = Asked(os.path.abspath(arguments.root), arguments.batches, arguments.clock, tuple(arguments.overrides))
    if arguments.side == "loop":
        print(plain_loop(asked.root, asked.n_batches, "cpu", asked.clock))
        return
    if arguments.side == "run":
        print(our_run(asked))
        return
    ours_is, hours_are = " ".join(asked.overrides), "hours by the clock" if asked.by_clock else "core hours"
    epochs: list[float] = []
    runs: list[float] = []
    for i in range(arguments.rounds):
        epochs.append(side("loop", asked))
        runs.append(side("run", asked))
        print(f"round {i + 1}  the loop's epoch {epochs[-1]:6.1f} s  our run {runs[-1]:6.1f} s", flush=True)
    epoch, run = statistics.median(epochs), statistics.median(runs)
    ratio = statistics.median(N_EPOCHS * a / b for a, b in zip(epochs, runs, strict=True))
    print(f"one run: {N_EPOCHS} epochs of the loop take {ratio:.1f} times as long as {ours_is}")
    hours = N_ARMS * N_SEEDS * N_EPOCHS * epoch / 3600
    print(f"the loop: {N_ARMS} arms x {N_SEEDS} seeds x {N_EPOCHS} epochs, {hours:.1f} {hours_are}")
    for study in arguments.studies:
        n = sum(trial.state == "complete" for trial in read_study(study).trials)
        ours, times = n * run / 3600, N_ARMS * N_SEEDS / n * ratio
        print(f"{study.parent.name}: {n} runs until clear, {ours:.2f} {hours_are}, 1/{times:.0f} of the loop's")


if __name__ == "__main__":
    main()
