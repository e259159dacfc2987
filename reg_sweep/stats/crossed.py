"""Two-way random effects: how far a difference of two arms varies over both seeds and test images.

A paired t interval over seeds answers 'other seeds, these test images'. Test images are a sample too, and
with few images they dominate the uncertainty. Seeds and images are crossed: every seed's model sees every image.
"""

from dataclasses import dataclass, replace
from math import inf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from reg_sweep.stats.moderation import Floats


@dataclass(frozen=True)
class Crossed:
    """An accuracy difference over `n_seeds` x `n_images`, with what seeds and images each add to its uncertainty.

    mean: arm minus baseline, a share. ci_low..ci_high: for new seeds and new images. from_seeds, from_images,
    from_both: the parts of the variance of `mean`, sigma_seed^2 / S, sigma_image^2 / I and sigma_rest^2 / (S I).
    df: of their sum.
    """

    mean: float
    ci_low: float
    ci_high: float
    from_seeds: float
    from_images: float
    from_both: float
    df: float
    n_seeds: int
    n_images: int

    @property
    def buy(self) -> Literal["seeds", "images"]:
        """Seeds or images, whichever adds more to the variance: more of these narrow the interval most."""
        return "seeds" if self.from_seeds >= self.from_images else "images"

    def standard_error(self, n_seeds: float, n_images: float) -> float:
        """The standard error with so many seeds and images; `math.inf` stands for the whole population."""
        seeds, images = self.n_seeds / n_seeds, self.n_images / n_images
        return sqrt(self.from_seeds * seeds + self.from_images * images + self.from_both * seeds * images)

    def other_sample(
        self, n_seeds: float, n_images: float, same_seeds: bool, level: float = 0.95
    ) -> tuple[float, float]:
        """The prediction interval of the difference on other images, and on other seeds unless `same_seeds`.

        Real data can check this prediction: one half of the test images predicts the other half (`halves`). Its
        variance is the sum of both samples' variances; what they share through `same_seeds` cancels.

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        shared = replace(self, from_seeds=0.0) if same_seeds else self
        there = shared.standard_error(n_seeds, n_images) ** 2
        here = shared.standard_error(self.n_seeds, self.n_images) ** 2
        df = self.n_images - 1.0 if same_seeds else self.df
        half = _t(level, df) * sqrt(here + there)
        return self.mean - half, self.mean + half


def crossed_difference(correct_arm: ArrayLike, correct_baseline: ArrayLike, level: float = 0.95) -> Crossed:
    """The mean of d = correct_arm - correct_baseline, with its interval for new seeds and new images.

    d[s, i] in {-1, 0, 1} = delta + seed_s + image_i + rest_si, all random: a two-way layout without replication.
    The mean squares of its analysis of variance (Searle, Casella and McCulloch 1992, chapter 4)

        MS_s = I sum_s (d_s. - d..)^2 / (S - 1)       E MS_s = sigma_rest^2 + I sigma_seed^2
        MS_i = S sum_i (d_.i - d..)^2 / (I - 1)       E MS_i = sigma_rest^2 + S sigma_image^2
        MS_r = the rest / ((S - 1) (I - 1))           E MS_r = sigma_rest^2

    give var(d..) = (MS_s + MS_i - MS_r) / (S I), at least the larger of MS_s and MS_i over S I. Its degrees of freedom
    are Satterthwaite's, var^2 / sum of (MS / (S I))^2 / df over the three. Components are at least 0.

    Args:
        correct_arm, correct_baseline: boolean, (n_seeds, n_images), the same seeds and images in the same order.

    Raises:
        ValueError: the arrays are not boolean, differ in shape, or hold fewer than two seeds or two images, or the
        level is not between 0 and 1.
    """
    d = _outcome_differences(correct_arm, correct_baseline)
    n_seeds, n_images = d.shape
    size = n_seeds * n_images
    mean = float(d.mean())
    by_seed, by_image = d.mean(axis=1) - mean, d.mean(axis=0) - mean
    df_s, df_i = n_seeds - 1, n_images - 1
    squares_s, squares_i = n_images * float((by_seed**2).sum()), n_seeds * float((by_image**2).sum())
    ms_s, ms_i = squares_s / df_s, squares_i / df_i
    ms_r = max(float(((d - mean) ** 2).sum()) - squares_s - squares_i, 0.0) / (df_s * df_i)
    variance = max(ms_s + ms_i - ms_r, ms_s, ms_i) / size
    spread = (ms_s**2 / df_s + ms_i**2 / df_i + ms_r**2 / (df_s * df_i)) / size**2
    df = max(variance**2 / spread, df_s) if spread > 0 else nan
    half = _t(level, df) * sqrt(variance) if variance > 0 else nan  # as paired_difference: no spread, no interval
    from_seeds, from_images = max(ms_s - ms_r, 0.0) / size, max(ms_i - ms_r, 0.0) / size
    return Crossed(mean, mean - half, mean + half, from_seeds, from_images, ms_r / size, df, n_seeds, n_images)


def halves(
    correct_arm: ArrayLike, correct_baseline: ArrayLike, generator: np.random.Generator, level: float = 0.95
) -> tuple[Crossed, Crossed, bool]:
    """One random half of the test images, the other half, and whether the first one's prediction interval contains the
    second.

    The same seeds are in both, so the prediction is for new images alone. Over many splits of real predictions the
    share of True should be `level`: a check of `crossed_difference` that assumes no model.

    Raises:
        ValueError: as `crossed_difference`, for halves of the images.
    """
    arm, baseline = np.asarray(correct_arm), np.asarray(correct_baseline)
    order = generator.permutation(arm.shape[-1])
    here, there = (crossed_difference(arm[:, part], baseline[:, part], level) for part in (order[::2], order[1::2]))
    low, high = here.other_sample(there.n_seeds, there.n_images, same_seeds=True, level=level)
    return here, there, low <= there.mean <= high


def _outcome_differences(correct_arm: ArrayLike, correct_baseline: ArrayLike) -> Floats:
    arm, baseline = np.asarray(correct_arm), np.asarray(correct_baseline)
    if arm.dtype != np.bool_ or baseline.dtype != np.bool_:
        raise ValueError(
            f"correct_arm and correct_baseline must be boolean, got {arm.dtype} and {baseline.dtype}: "
            "pass predicted == label"
        )
    if arm.shape != baseline.shape or arm.ndim != 2:
        raise ValueError(
            "correct_arm and correct_baseline must have a row for each seed and a column for each image, the same in "
            f"both, got shapes {arm.shape} and {baseline.shape}"
        )
    if min(arm.shape) < 2:
        raise ValueError(f"seeds and images must be at least two each, got {arm.shape[0]} and {arm.shape[1]}")
    d: Floats = arm.astype(np.float64) - baseline.astype(np.float64)
    return d


def _t(level: float, df: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    return float(stdtrit(df, (1 + level) / 2)) if df < inf else nan
