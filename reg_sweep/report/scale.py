"""One axis shared by many small plots: places of values, in percent of its width, and ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_PAD = 0.04  # of the axis, free at both ends, so that a mark there is whole
_FAR = 8.0  # an axis is stretched if its span is this many times what half of the values need
_APART = 16.0  # percent between two ticks, at least


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`. With a `unit` it is stretched around `centre`, as asinh((v - centre) / unit).

    So a far value fits on the axis, and values near the centre can still be distinguished.
    """

    low: float
    high: float
    centre: float
    unit: float | None

    @property
    def is_stretched(self) -> bool:
        """Whether the axis is compressed away from its centre."""
        return self.unit is not None

    def place(self, value: float) -> float:
        """Percent of the width, rounded to a tenth."""
        low, high = self._warped(self.low), self._warped(self.high)
        share = (self._warped(value) - low) / (high - low)
        return round(100 * (_PAD + (1 - 2 * _PAD) * share), 1)

    def ticks(self) -> list[float]:
        """Round values on the axis, far enough apart for their numbers; on a stretched one from the centre outwards."""
        if self.unit is None:
            return self._even_ticks()
        reach = max(self.high - self.centre, self.centre - self.low)
        steps = [m * 10.0**k for k in range(-8, 9) for m in (1, 2, 5)]
        far = [s for s in reversed(steps) if 0.2 * self.unit <= s <= reach]
        kept = [self.centre]
        for value in (self.centre + sign * step for step in far for sign in (1, -1)):
            is_free = all(abs(self.place(value) - self.place(other)) >= _APART for other in kept)
            if self.low <= value <= self.high and is_free:
                kept.append(value)
        return sorted(kept)

    def _even_ticks(self) -> list[float]:
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / 3))
        step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 5)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _warped(self, value: float) -> float:
        return value if self.unit is None else math.asinh((value - self.centre) / self.unit)


def scale(values: Iterable[float], centre: float) -> Scale:
    """The axis that holds every known value and the centre; nothing is clipped.

    It is even, unless a few far values would leave the others no room.
    """
    known = np.array([v for v in values if math.isfinite(v)] + [centre])
    low, high = float(known.min()), float(known.max())
    if high - low < 1e-12 + 1e-9 * abs(centre):
        room = max(abs(centre) * 1e-3, 9e-3)  # three ticks, whose numbers have room
        return Scale(low - room, high + room, centre, None)
    near = float(np.quantile(np.abs(known - centre), 0.6))
    is_far = near > 0 and high - low > _FAR * 2 * near
    return Scale(low, high, centre, near if is_far else None)
