"""Random streams: what every draw of a run follows from."""

import zlib

import numpy as np


def random_stream(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """A generator of its own for each seed, purpose and epoch.

    Every arm of one seed draws the same numbers for the same purpose, whatever else it draws, so that arms pair; and
    an epoch needs no state of the epochs before it, so that a resumed run draws what it would have drawn.
    """
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(purpose.encode()), epoch]))


def epoch_seed(seed: int, epoch: int) -> int:
    """What torch's own generator is seeded with before an epoch, for layers that draw from it."""
    return int(random_stream(seed, "torch", epoch).integers(2**62))
