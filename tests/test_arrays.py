"""Predictions and weights: what is written comes back, and what others wrote is looked at before it is unpacked."""

import numpy as np
import torch
from safetensors.torch import load_file

from reg_sweep import records
from reg_sweep.arrays import write_predictions, write_weights


def test_predictions_and_weights_come_back_as_they_were_written(tmp_path):
    write_predictions(tmp_path, predicted=np.array([1, 2]), probability=np.array([0.5, 0.25], np.float32), index=None)
    with np.load(tmp_path / records.PREDICTIONS_FILE) as arrays:
        assert set(arrays) == {"predicted", "probability"}
        assert arrays["predicted"].tolist() == [1, 2]
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    write_weights(tmp_path, {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    loaded = load_file(tmp_path / records.WEIGHTS_FILE)
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
