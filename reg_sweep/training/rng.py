"""Random number generators of a run: one for each seed, purpose and epoch."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def generator(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """A generator that depends only on this seed, purpose and epoch.

    All arms with one seed draw the same numbers for the same purpose, so that arms can be compared in pairs. An epoch
    needs no state of earlier epochs, so a resumed run draws the same numbers as an uninterrupted one.
    """
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(purpose.encode()), epoch]))


def of_rank(purpose: str, rank: int) -> str:
    """The purpose with which a rank draws for its own images; the first rank draws as a single process does."""
    return purpose if rank == 0 else f"{purpose} of rank {rank}"


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """The seed of torch's global generator in an epoch, for layers that draw from it."""
    return int(generator(seed, of_rank("torch", rank), epoch).integers(2**62))


def seed_generators(seed: int) -> None:
    """Seeds the global generators of torch, numpy and Python, for custom code that draws from them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restores the global generators at the end of the block, which may seed them."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)
