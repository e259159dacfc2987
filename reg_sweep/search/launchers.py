"""What is known of Hydra's launchers beside their one method: how many jobs they run at once, and why they raise."""

import logging
import os
import re
import shutil
import subprocess

from omegaconf import DictConfig

from reg_sweep.search.settings import StudyError

log = logging.getLogger(__name__)

_LAST_WORD = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b: ")  # of a traceback
_THEIRS = ("joblib.", "submitit.", "ray.")
_ANSWER_S = 60  # of a SLURM that is busy


def usable_cores() -> int:
    """The cores that this process may use: the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def at_once(launcher: DictConfig) -> int:
    """How many jobs a launcher runs at once, by its own settings; 1 where it has none that says so."""
    kind = _kind(launcher)
    if kind == "JoblibLauncher":
        n = int(launcher["n_jobs"])
        return n if n > 0 else max(1, usable_cores() + 1 + n)  # joblib counts from the number of cores: -1 is all
    if kind == "SlurmLauncher":
        return int(launcher["array_parallelism"])
    return max(1, usable_cores() // (launcher["cpus_per_task"] or 1)) if kind == "LocalLauncher" else 1


def check_launcher(launcher: DictConfig) -> None:
    """Refuses a launcher that can't start anything here, before anything is written.

    Raises:
        StudyError: it is SLURM's, and this machine has none that answers.
    """
    if _kind(launcher) != "SlurmLauncher":
        return
    is_there = shutil.which("sbatch") is not None and shutil.which("srun") is not None
    trouble = _trouble("sinfo", "-h") if is_there else "no sbatch and srun"
    if trouble is not None:
        raise StudyError(
            f"hydra/launcher=submitit_slurm must be started where SLURM answers, got {trouble}: start it on a login"
            " node, or take hydra/launcher=submitit_local"
        )
    trouble = _trouble("sacct", "-n", "-j", "1")
    if trouble is not None:
        log.warning("SLURM's accounting does not answer (%s): a job that dies without a word is waited for", trouble)


def _trouble(*command: str) -> str | None:
    """Why one of SLURM's programs does not answer, in a line; None where it does."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1]


def reason(error: BaseException) -> str:
    """Why a launcher raised, in one line: of a job's traceback, which it may quote, the last word."""
    lines = [line.strip(" |-") for line in str(error).splitlines()]
    last = [line for line in lines if _LAST_WORD.match(line) or "No module named" in line]
    said = [line for line in last[-1:] or lines[:1] if line]
    missing = "No module named" in "".join(said)
    remedy = ["its jobs' machine needs the packages of this one"] if missing else []
    return ": ".join([type(error).__name__, *said, *remedy])


def broken(error: BaseException) -> StudyError | None:
    """An error of a launcher's own, which came of a grid, in one line; None of any other."""
    if not type(error).__module__.startswith(_THEIRS):
        return None
    return StudyError(f"the launcher raised {reason(error)}; what was finished stays, the same command goes on")


def _kind(launcher: DictConfig) -> str:
    return str(launcher["_target_"]).rpartition(".")[2]
