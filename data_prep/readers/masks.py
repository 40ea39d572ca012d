"""Segmentation masks to boxes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_TABLE = 1 << 22  # largest mask value that is looked up in a table


def boxes(mask: np.ndarray, ids: Iterable[int]) -> dict[int, tuple[int, int, int, int]]:
    """The boxes of the pixels that have each value.

    Args:
        mask: (height, width) of integers.
        ids: values to look for; values that no pixel has are left out of the result.

    Returns:
        value -> x1, y1, x2, y2, half-open, in the order of `ids`.
    """
    from scipy.ndimage import find_objects

    ids = list(dict.fromkeys(map(int, ids)))
    if not mask.size or not ids:
        return {}
    labels = np.arange(1, len(ids) + 1, dtype=np.int32)
    low, high = int(mask.min()), int(mask.max())
    if low >= 0 and high < _TABLE:
        table = np.zeros(high + 1, np.int32)
        for value, label in zip(ids, labels, strict=True):
            if 0 <= value <= high:
                table[value] = label
        ranked = table[mask]
    else:
        ranked = np.zeros(mask.shape, np.int32)
        for value, label in zip(ids, labels, strict=True):
            ranked[mask == value] = label
    found = find_objects(ranked, len(ids))  # one pass over the pixels
    return {
        value: (part[1].start, part[0].start, part[1].stop, part[0].stop)
        for value, part in zip(ids, found, strict=True)
        if part is not None
    }
