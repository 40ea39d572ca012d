"""Sums of shares that come out the same in whatever order, and in however many parts, they are added.

A share is held as two whole numbers of 30 bits each. What that leaves out is less than 1e-18 of each share; a sum has
room for 2^33 of them.
"""

from __future__ import annotations

import numpy as np

UNIT = 1 << 30


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
    return (sums[0] + sums[1] / UNIT) / UNIT


def fixed(value: float) -> int:
    """The same of one number: add these up, and divide by UNITS in the end."""
    return int(value * _FACTOR)


UNITS = UNIT * UNIT
_FACTOR = float(UNITS)
