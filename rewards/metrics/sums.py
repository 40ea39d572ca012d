"""Sums of shares that come out the same in whatever order, and in however many parts, they are added.

A share is held as two whole numbers of 30 bits each. What that leaves out is less than 1e-18 of each share; a sum has
room for 2^33 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

UNIT = 1 << 30
_TOGETHER = 128
"""Arrays that are added at once: calls are what small ones cost."""


def parts(values: np.ndarray) -> np.ndarray:
    """(2, ...) int64 of finite values of any shape, at most about 1 each: add these up, in place of the values.

    >>> whole(parts(np.array([0.1, 1.0])) + parts(np.array([0.2, 1.0]))).tolist()
    [0.30000000000000004, 2.0]
    """
    scaled = np.asarray(values, dtype=np.float64) * UNIT
    high = np.floor(scaled)
    return np.stack([high, np.rint((scaled - high) * UNIT)]).astype(np.int64)


def whole(sums: np.ndarray) -> np.ndarray:
    """The values that parts (2, ...), or sums of them, stand for."""
    return np.asarray((sums[0] + sums[1] / UNIT) / UNIT)


class Sums:
    """The sum of a stream of arrays of one shape.

    >>> sums = Sums(2)
    >>> sums.add((0.5, 1.0))
    >>> (sums + sums).total().tolist()
    [1.0, 2.0]
    """

    def __init__(self, *shape: int):
        self._parts = np.zeros((2, *shape), dtype=np.int64)
        self._pending: list[Sequence[Any] | np.ndarray] = []

    def add(self, values: Sequence[Any] | np.ndarray) -> None:
        """Add an array, which is kept for a while: do not change it."""
        self._pending.append(values)
        if len(self._pending) >= _TOGETHER:
            self._sum()

    def __add__(self, other: Sums) -> Sums:
        found = Sums(*self._parts.shape[1:])
        for sums in (self, other):
            sums._sum()
            found._parts += sums._parts
        return found

    def total(self) -> np.ndarray:
        """float64 of the shape."""
        self._sum()
        return whole(self._parts)

    def _sum(self) -> None:
        if self._pending:
            self._parts += parts(np.array(self._pending)).sum(axis=1)
            self._pending.clear()
