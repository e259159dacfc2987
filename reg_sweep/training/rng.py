"""Random number generators of a run: one for each seed, purpose and epoch."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def random_stream(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """A generator for this seed, purpose and epoch alone.

    Every arm of one seed draws the same numbers for the same purpose, whatever else it draws, so that arms pair; and
    an epoch needs no state of the epochs before it, so that a resumed run draws what it would have drawn.
    """
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(purpose.encode()), epoch]))


def of_rank(purpose: str, rank: int) -> str:
    """The purpose under which a rank draws for its own images; the first rank draws as a single process does."""
    return purpose if rank == 0 else f"{purpose} of rank {rank}"


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """The seed of torch's own generator in an epoch, for layers that draw from it."""
    return int(random_stream(seed, of_rank("torch", rank), epoch).integers(2**62))


def seed_generators(seed: int) -> None:
    """Seeds the global generators of torch, numpy and Python, for the user's own code that draws from one of them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """A block that may seed the global generators: they stand again as before afterwards."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)
