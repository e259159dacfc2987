"""Runs as a pandas table, where pandas is installed."""

from collections.abc import Iterable, Mapping
from typing import Any


def frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A DataFrame of nested rows: one column for each leaf, named by its way (`config.norm.name`).

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("to_frame() needs pandas, which is not installed: pip install pandas") from None
    return pd.json_normalize([dict(row) for row in rows])
