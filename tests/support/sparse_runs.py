"""Writes finished runs whose networks have zero channels."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from reg_sweep.config.schema import RunConfig
from reg_sweep.training.run import train


def tiny(model: dict) -> RunConfig:
    data = {"source": {"_target_": "reg_sweep.mnist_sample"}, "train_size": 50, "val_size": 3000}
    return RunConfig(epochs=1, batch_size=8, model=model, data=data, runtime={"threads": 1})


def write_sparse_run(directory: Path, n_zero: int = 2) -> Path:
    """Writes a perceptron's run; `n_zero` of the eight channels of its first layer are zero."""
    config = tiny({"_target_": "reg_sweep.Mlp", "hidden": 8, "dropout": 0.0})
    train(config, directory, lambda: None, "python -m reg_sweep.train")
    weights = load_file(directory / "weights.safetensors")
    for name, tensor in weights.items():
        if name.startswith(("linears.0", "norms.0")) and tensor.ndim:
            tensor[:n_zero] = 0
    save_file(weights, directory / "weights.safetensors")
    return directory
