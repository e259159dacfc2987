"""Provenance of a run: the versions, commit, processor and time that a record needs to be reproducible."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import reg_sweep
from reg_sweep.runs.record import DeviceFacts
from reg_sweep.training import turns

if TYPE_CHECKING:
    import torch

CHECKOUT = Path(reg_sweep.__file__).parents[1]


def now() -> str:
    """The current time in UTC, in ISO 8601 format, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """The versions of Python, this package, and the libraries that affect a run's results."""
    packages = ("torch", "numpy", "hydra-core", "optuna")
    return {
        "python": platform.python_version(),
        "reg_sweep": reg_sweep.__version__,
        **{package: version(package) for package in packages},
    }


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, marked if modified; None outside a checkout."""
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def device_facts(device: "torch.device", threads: int | None) -> DeviceFacts:
    """The facts that a record keeps about the device; `threads` as in the config, None for torch's own choice."""
    import torch

    threads = threads or torch.get_num_threads()
    facts: DeviceFacts = {"name": device.type, "threads": threads, "processor": processor(device)}
    return facts if turns.current() is None else {**facts, "population": True}


def processor(device: "torch.device") -> str:
    """The name of the GPU, or of the CPU as the system reports it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
