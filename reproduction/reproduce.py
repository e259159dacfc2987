"""Rerun both exercises with seeds, and claim 4 on harder images: python reproduction/reproduce.py   (make reproduce)

    --plan              print what is finished and how long the rest takes, and train nothing
    --only STAGE ...    run only these stages
    --jobs N            number of runs at once, with one thread each (default: the number of cores)
    --records           start from the records in reproduction/records, and store new records there

All outputs are in outputs/, as if you had typed the commands yourself. You can stop it at any time; the same command
resumes. The output of all runs and studies is in outputs/reproduction.log.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stages import STAGES, Job, Stage

from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import METRICS_FILE, PREDICTIONS_FILE, RUN_FILE, STUDY_FILE, WEIGHTS_FILE, RecordError
from reg_sweep.training.devices import choose_device
from reg_sweep.training.provenance import processor

OUTPUTS = Path("outputs")
RECORDS = Path(__file__).resolve().parent / "records"
LOG = OUTPUTS / "reproduction.log"
FINISHED = "finished"  # written in a study's folder once its command has succeeded
# The files that mark a folder as finished come last. The first two are for reports, and are not committed.
COPIED = (WEIGHTS_FILE, PREDICTIONS_FILE, METRICS_FILE, STUDY_FILE, "compact/compact.json", RUN_FILE, FINISHED)
STUDY_WORKERS = 4  # the most workers: with more, the sampler sees too few results
SECONDS_PER_IMAGE = 0.00025  # on one core, until something is measured on this machine


def main() -> None:
    options = parse_arguments()
    OUTPUTS.mkdir(exist_ok=True)
    if options.records:
        copy_records(RECORDS, OUTPUTS)
    stages = [stage for stage in STAGES if not options.only or stage.name in options.only]
    print_plan(stages, options.jobs)
    if options.plan:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a shell's background job may itself ignore SIGINT
    try:
        for stage in stages:
            work_through(stage, options.jobs)
    except KeyboardInterrupt:
        sys.exit(f"stopped; to resume, repeat: {' '.join(['python', *sys.argv])}")
    finally:
        if options.records:
            copy_records(OUTPUTS, RECORDS)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="STAGE", choices=[stage.name for stage in STAGES])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--records", action="store_true")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    return options


# ---- what is finished, and what the rest costs


def print_plan(stages: list[Stage], n_jobs: int) -> None:
    """Print a line for each stage, and the time that the rest takes on this machine."""
    rate = seconds_per_image()
    total = 0.0
    for stage in stages:
        if stage.needs is not None and not all(is_finished(job) for job in _named(stage.needs).jobs(OUTPUTS)):
            print(f"{stage.name:18} {stage.about}: planned once {stage.needs} is finished")
            continue
        jobs = list(stage.jobs(OUTPUTS))
        left = [job for job in jobs if not is_finished(job)]
        hours = sum(job.n_images for job in left) * rate / 3600
        total += hours
        at_most = "at most " if any(job.is_study for job in left) else ""
        rest = f"{at_most}{hours:.1f} core-hours left" if left else "done"
        print(f"{stage.name:18} {stage.about}: {len(jobs) - len(left)} of {len(jobs)} done, {rest}")
    print(f"{total:.1f} core-hours, {total / n_jobs:.1f} hours with {n_jobs} at once")


def _named(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)


def seconds_per_image() -> float:
    """Seconds per image on this machine, from its finished runs; on the GPU if a GPU trains."""
    here = processor(choose_device("auto"))
    measured = []
    for stage in STAGES:
        if stage.needs is None:
            runs = [job for job in stage.jobs(OUTPUTS) if not job.is_study and is_finished(job)]
            records = [(job, read_record(OUTPUTS / job.name)) for job in runs]
            measured += [r["seconds"] / job.n_images for job, r in records if r["device"]["processor"] == here]
    return statistics.median(measured) if measured else SECONDS_PER_IMAGE


def is_finished(job: Job) -> bool:
    if job.is_study:
        return (OUTPUTS / job.name / FINISHED).exists()
    try:
        return read_record(OUTPUTS / job.name)["status"] in ("complete", "diverged")
    except (OSError, RecordError):
        return False


# ---- training


def work_through(stage: Stage, n_jobs: int) -> None:
    """Train the unfinished part of a stage: single runs in parallel, and as many studies as there are jobs for.

    Raises:
        SystemExit: a command failed.
    """
    left = [job for job in stage.jobs(OUTPUTS) if not is_finished(job)]
    running = Running()
    workers = min(n_jobs, STUDY_WORKERS) if any(job.is_study for job in left) else 1
    pool = ThreadPoolExecutor(n_jobs // workers)
    started, n_images = time.monotonic(), 0.0
    try:
        futures = {pool.submit(running.finish, job, workers): job for job in left}
        for n, future in enumerate(as_completed(futures), start=1):
            future.result()
            n_images += futures[future].n_images
            rest = sum(job.n_images for job in left) - n_images
            hours = rest / n_images * (time.monotonic() - started) / 3600
            print(f"{stage.name}: {futures[future].name} done, {n} of {len(left)}, {hours:.1f} hours left", flush=True)
    except BaseException:
        running.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def command(job: Job, workers: int) -> list[str]:
    shared = (f"hydra.sweeper.workers={workers}",) if job.is_study else ()
    overrides = (*job.overrides, f"name={job.name}", "runtime.threads=1", *shared)
    return [sys.executable, "-m", "reg_sweep.train", *overrides]


class Running:
    """The commands in progress."""

    def __init__(self) -> None:
        self._stopping, self._lock = False, threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def finish(self, job: Job, workers: int) -> None:
        """Run or resume a job's commands; start nothing new once one failed or all were stopped."""
        compacting = [sys.executable, "-m", "reg_sweep.compact", str(OUTPUTS / job.compacts)]
        done = all(self._runs(job, c) for c in ([compacting] if job.compacts else []) + [command(job, workers)])
        if done and job.is_study:
            (OUTPUTS / job.name / FINISHED).touch()

    def _runs(self, job: Job, arguments: list[str]) -> bool:
        """Run a command, and return whether it succeeded; False if it was stopped or never started."""
        with LOG.open("a") as log, self._lock:
            if self._stopping:
                return False
            log.write(f"$ python {' '.join(arguments[1:])}\n")
            log.flush()
            environment = {"OMP_NUM_THREADS": "1", **os.environ}
            process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)
            self._processes.add(process)
        if job.is_study:
            print(f"started: {' '.join(arguments[1:])}", flush=True)
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
            was_stopped, self._stopping = self._stopping, self._stopping or code != 0
        if code != 0 and not was_stopped:
            sys.exit(f"{job.name} ended with exit code {code}: see {LOG}; to resume, repeat the command")
        return code == 0

    def stop(self) -> None:
        """Ask running commands to keep their checkpoints and end, and start nothing new."""
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()


# ---- stored records


def copy_records(source: Path, target: Path) -> None:
    """Copy the records of finished runs and studies that the target lacks, and the files that a report shows."""
    for folder in finished_folders(source):
        to = target / folder.relative_to(source)
        names = [name for name in COPIED if (folder / name).exists()]
        if all((to / name).exists() for name in names):
            continue
        to.mkdir(parents=True, exist_ok=True)
        for name in names:
            (to / name).parent.mkdir(exist_ok=True)
            if name == RUN_FILE:
                (to / name).write_text(_without_place((folder / name).read_text()))
            else:
                shutil.copyfile(folder / name, to / name)


def _without_place(record: str) -> str:
    """A record without the images' location, as if they were in the default folder."""
    facts = json.loads(record)
    facts["config"]["data"]["root"] = "data"
    return json.dumps(facts, indent=1) + "\n"


def finished_folders(root: Path) -> Iterator[Path]:
    """Folders of the stages' finished runs and studies, and of the runs in finished studies."""
    for stage in STAGES:
        try:
            jobs = list(stage.jobs(root))
        except RecordError:  # it needs a search that has not run yet
            continue
        for job in jobs:
            folder = root / job.name
            if job.is_study and (folder / FINISHED).exists():
                yield folder
                yield from (path.parent for path in sorted(folder.glob(f"*/{RUN_FILE}")))
            elif not job.is_study and (folder / RUN_FILE).exists() and read_record(folder)["status"] == "complete":
                yield folder


if __name__ == "__main__":
    main()
