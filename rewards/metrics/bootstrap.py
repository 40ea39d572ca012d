"""Intervals of means and of pooled figures, by resampling what was counted of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
_BLOCK = 1 << 20  # draws at once: memory stays small however many images and resamples there are


def resampled_sums(columns: Sequence[Any] | np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Sums of columns over images drawn with replacement: what a bootstrap over images needs (Efron, 1979).

    Every mean and every pooled figure is a function of such sums. Columns of two runs on the same images, side by
    side, are drawn together, so that their difference has a paired interval.

    Args:
        columns: (images, K) numbers, at least one image.
        seed: the same seed and number of images draw the same images.

    Returns: (resamples, K) float64.

    >>> resampled_sums([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], resamples=2).tolist()
    [[3.0, 6.0], [3.0, 6.0]]
    """
    columns = np.asarray(columns, dtype=np.float64)
    images = len(columns)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples, columns.shape[1]))
    step = max(1, _BLOCK // images)
    for start in range(0, resamples, step):
        drawn = generator.integers(0, images, (min(step, resamples - start), images))
        drawn += images * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums[start : start + len(drawn)] = times @ columns
    return sums


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of resampled figures.

    >>> interval(range(101))
    (2.5, 97.5)
    """
    low, high = np.quantile(np.asarray(values, dtype=np.float64), (0.025, 0.975))
    return float(low), float(high)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element by element; 0 where there is nothing to divide by."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    shares: np.ndarray = np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
    return shares
