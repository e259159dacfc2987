"""Random numbers for tests of statistics: the same in every run."""

import numpy as np


def rng() -> np.random.Generator:
    """A new generator, always with the same seed."""
    return np.random.default_rng(20)
