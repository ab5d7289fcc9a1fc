"""Confidence intervals: of the drop between two networks on the same images, and of a mean over seeds."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95


class Drop(NamedTuple):
    """Base accuracy minus accuracy in percentage points, and the ends of its 95 % confidence interval."""

    drop: float
    low: float
    high: float


def paired_drop(base_correct: npt.NDArray[np.bool_], correct: npt.NDArray[np.bool_]) -> Drop:
    """The drop on the same images, with the adjusted Wald interval for paired proportions.

    There are ``f10`` images that only the base network gets right and ``f01`` that only the other one gets
    right. One image is added to each count, so that the interval has a width even if the two never disagree::

        p10 = (f10 + 1) / (n + 2),  p01 = (f01 + 1) / (n + 2)
        p10 - p01 -+ z * sqrt((p10 + p01 - (p10 - p01)**2) / (n + 2))

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", Journal of Educational and Behavioral Statistics 37(4), 479-488. ``drop`` itself is
    the plain difference of the accuracies.

    Args:
        base_correct: bool (n,), whether the base network gets each image right.
        correct: bool (n,), the same of the other network, on the same images in the same order.

    Raises:
        ValueError: If the arrays are empty, not bool, or not of the same length.
    """
    base_correct, correct = np.asarray(base_correct), np.asarray(correct)
    if base_correct.dtype != bool or correct.dtype != bool:
        raise ValueError(f"expected two bool arrays; got {base_correct.dtype} and {correct.dtype}")
    if base_correct.ndim != 1 or base_correct.shape != correct.shape or not base_correct.size:
        shapes = f"{base_correct.shape} and {correct.shape}"
        raise ValueError(f"expected two arrays of the same length, above 0; got shapes {shapes}")
    n = base_correct.size
    lost = int(np.count_nonzero(base_correct & ~correct))
    won = int(np.count_nonzero(~base_correct & correct))
    p_lost, p_won = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = p_lost - p_won
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    half = z * math.sqrt((p_lost + p_won - centre**2) / (n + 2))
    return Drop(100 * (lost - won) / n, 100 * max(-1.0, centre - half), 100 * min(1.0, centre + half))


_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 97.5 % quantile of Student's t with 1 to 30 degrees of freedom; the last stands for more."""


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of independent repetitions, such as seeds, and the ends of its 95 % interval (Student's t).

    Args:
        values: At least one; of one alone, and where one is NaN, the ends are NaN.
    """
    mean, n = fmean(values), len(values)
    if n < 2 or math.isnan(mean):
        return (mean, math.nan, math.nan)
    half = _STUDENT[min(n - 2, len(_STUDENT) - 1)] * stdev(values) / math.sqrt(n)
    return (mean, mean - half, mean + half)
