"""Trains image classifiers under combinations of norms, L1 and L2, and judges the runs statistically."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "judge": "judging",
    "GhostBatchNorm2d": "training.norms",
    "penalize": "training.penalties",
    "penalized": "training.weights",
    "orthogonality": "training.own_penalties",
    "RunConfig": "config.schema",
    "fit": "training.fit",
    "read_runs": "runs.reading",
    "record_run": "runs.recording",
    "Images": "images",
    "torchvision_images": "images",
    "mnist_sample": "images",
    "npz_images": "images",
    "SqueezeExpand": "training.model",
    "Mlp": "training.model",
    "ResNet": "training.model",
    "load_model": "training.checkpoint",
    "compacted": "compact.loading",
    "Callback": "training.callbacks",
    "TensorBoard": "training.callbacks",
    "Mlflow": "training.callbacks",
    "Wandb": "training.callbacks",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports public names at first use, so that reading records does not need torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reg_sweep' has no attribute {name!r}")
    try:
        return getattr(import_module(f"reg_sweep.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "reg_sweep.training":
            raise
        said = f"reg_sweep.{name} needs torch, which reg_sweep-light leaves out: pip install reg_sweep"
        raise ImportError(said) from None
