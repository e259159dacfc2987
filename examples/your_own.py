"""Your own data set and model. Run this in the folder of this file:

python -m reg_sweep.train --config-dir conf data=digits model=small_net norm=gbn l2=0.0005
"""

from collections.abc import Callable

import numpy as np
from sklearn import datasets
from torch import Tensor, nn

from reg_sweep import Images


def load_digits(root: str, n_test: int) -> Images:
    """scikit-learn's 1,797 handwritten digits: 8x8 pixels with 17 grey values. `root` is data.root, unused here."""
    digits = datasets.load_digits()
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    return Images(pixels[n_test:], labels[n_test:], pixels[:n_test], labels[:n_test])


class SmallNet(nn.Module):
    """conv -> norm -> ReLU -> average -> linear. `norm` creates the norm layer that norm=... chooses."""

    def __init__(
        self, in_shape: tuple[int, int, int], n_classes: int, norm: Callable[[int], nn.Module], width: int
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_shape[0], width, 3, bias=False), norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.classify = nn.Linear(4 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x).flatten(1))
