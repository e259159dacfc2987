"""Apply a run's trained network to your own images: python your_trained_model.py outputs/NAME"""

import sys

import torch
from your_own import load_digits

from reg_sweep import load_model, read_runs

directory = sys.argv[1]
model = load_model(directory, device="cpu")
(run,) = read_runs(directory)
mean, std = (torch.tensor(run.record["data"][name])[:, None, None] for name in ("mean", "std"))

digits = load_digits("", n_test=397)
pixels = torch.from_numpy(digits.test_images)[:, None]  # (N, C, H, W), as uint8
with torch.no_grad():
    predicted = model((pixels / 255 - mean) / std).argmax(1)
print(f"accuracy {(predicted.numpy() == digits.test_labels).mean():.2%}")
