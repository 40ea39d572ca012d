"""How far confidences can be trusted."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewards.metrics.bootstrap import ratio

BINS = 10


class Calibration:
    """Confidences of predicted relations beside whether they were right; nine bytes each."""

    def __init__(self) -> None:
        self._confidence = array("d")
        self._right = bytearray()
        self.without = 0

    def add(self, confidences: Sequence[Any], right: set[int], relations: int) -> None:
        """Of one image: a confidence in [0, 1] or None for each of `relations` relations; `right` are positions.

        What has no confidence, or none that is a number in [0, 1], is counted in `without`: all, if they are not as
        many as the relations.
        """
        if not isinstance(confidences, Sequence) or len(confidences) != relations:
            self.without += relations
            return
        for position, value in enumerate(confidences):
            if type(value) in (int, float) and 0 <= value <= 1:
                self._confidence.append(value)
                self._right.append(position in right)
            else:
                self.without += 1

    def merge(self, other: Calibration) -> None:
        """Add what another has counted."""
        self._confidence.extend(other._confidence)
        self._right.extend(other._right)
        self.without += other.without

    def compute(self) -> dict[str, Any] | None:
        """bins (low, high, relations, and the means confidence and precision), ece, auroc, relations,
        without_confidence; None if no relation has a confidence.

        ece: expected calibration error (Naeini et al., 2015), the mean distance of confidence and precision in bins of
        equal width. auroc: the chance that a right relation has a higher confidence than a wrong one, ties counting
        half; None if all are right or all wrong.
        """
        if not self._confidence:
            return None
        confidence = np.frombuffer(self._confidence, dtype=np.float64)
        right = np.frombuffer(self._right, dtype=np.uint8)
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        mean = ratio(np.bincount(place, confidence, BINS), count)
        precision = ratio(np.bincount(place, right, BINS), count)
        bins = [
            {"low": i / BINS, "high": (i + 1) / BINS, "relations": int(count[i])}
            | ({"confidence": float(mean[i]), "precision": float(precision[i])} if count[i] else {})
            for i in range(BINS)
        ]
        return {
            "bins": bins,
            "ece": float((count * np.abs(mean - precision)).sum() / len(confidence)),
            "auroc": auroc(confidence, right),
            "relations": len(confidence),
            "without_confidence": self.without,
        }


def auroc(scores: Sequence[float] | np.ndarray, right: Sequence[int] | np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that something right scores higher than something wrong.

    scores: (N,); right: (N,) 0 or 1. None if one of the kinds is missing.

    >>> auroc([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    0.875
    """
    right = np.asarray(right, dtype=bool)
    _, place, count = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # equal scores share the mean of their ranks
    n, m = int(right.sum()), int((~right).sum())
    return float((rank[right].sum() - n * (n + 1) / 2) / (n * m)) if n and m else None
