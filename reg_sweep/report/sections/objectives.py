"""What a study searches by, as the page says it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reg_sweep.runs.record import METRIC


@dataclass(frozen=True)
class Objective:
    """What a study searches by. Shares are shown in %."""

    name: str
    is_share: bool

    @property
    def words(self) -> str:
        """'val loss'."""
        return self.name.replace("_", " ")

    @property
    def unit(self) -> str:
        """'val accuracy, %', as a heading or an axis says it."""
        return f"{self.words}, %" if self.is_share else self.words

    def text(self, value: float) -> str:
        """A value without its unit."""
        if not math.isfinite(value):
            return "not finite"
        return f"{100 * value:.2f}" if self.is_share else f"{value:#.4g}"

    def texts(self, values: Sequence[float]) -> list[str]:
        """Values beside each other, with as many digits more, up to four, as tell apart those that differ."""
        texts = [self.text(v) for v in values]
        n_apart = len({v for v in values if math.isfinite(v)})
        for more in range(1, 5):
            if len({t for t, v in zip(texts, values, strict=True) if math.isfinite(v)}) == n_apart:
                break
            form = f".{2 + more}f" if self.is_share else f"#.{4 + more}g"
            texts = [f"{100 * v if self.is_share else v:{form}}" if math.isfinite(v) else self.text(v) for v in values]
        return texts


def objective(name: str) -> Objective:
    """An objective by its name: a metric, `zero_share`, or another number that a user's own app returns."""
    metric = METRIC.get(name)
    return Objective(name, is_share=name == "zero_share" if metric is None else metric.unit == "share")
