"""Sizes of a split, checked before any image is read. It needs no torch, so a sweep's own process starts without it."""

from reg_sweep.config.schema import ConfigError, DataConfig
from reg_sweep.images import N_OFFLINE, N_TRAIN, OFFLINE_N_TEST


def check_split(config: DataConfig) -> None:
    """Refuses a split that can't be, for the data sets whose size is known beforehand.

    Raises:
        ConfigError: `val_size` or `train_size` asks for more images than there are.
    """
    dataset = config.source.get("dataset", "")
    if not isinstance(dataset, str):
        raise ConfigError(f"data.source.dataset must be the name of a data set, got {dataset!r}")
    n = N_TRAIN.get(dataset)
    if config.source["_target_"] == "reg_sweep.mnist_sample":
        n = N_OFFLINE - OFFLINE_N_TEST
    if n is not None:
        check_sizes(config.val_size, config.train_size, n)


def check_sizes(val_size: int | None, train_size: int | None, n: int) -> None:
    """Refuses `val_size` and `train_size` that `n` train images can't give.

    Raises:
        ConfigError: one of them is too large.
    """
    val_size = val_size or 0
    if val_size >= n:
        raise ConfigError(
            f"data.val_size must be below the {n} train images it is taken from, got {val_size}: lower data.val_size"
        )
    if train_size is not None and train_size > n - val_size:
        raise ConfigError(
            f"data.train_size must be at most {n - val_size} (the train images that data.val_size={val_size} leaves), "
            f"got {train_size}: lower one of the two"
        )
