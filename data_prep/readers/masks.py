"""Segmentation masks to boxes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_DIRECT = 1 << 12  # below that, all values are located at once, wanted or not
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
    low, high = int(mask.min()), int(mask.max())
    if high < _DIRECT and min(ids) > 0:
        parts = find_objects(mask, max(high, 1))  # one pass over the pixels
        return {value: _box(parts[value - 1]) for value in ids if value <= high and parts[value - 1] is not None}
    labels = np.arange(1, len(ids) + 1, dtype=np.int32)
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
    return {value: _box(part) for value, part in zip(ids, found, strict=True) if part is not None}


def _box(part: tuple[slice, slice]) -> tuple[int, int, int, int]:
    return part[1].start, part[0].start, part[1].stop, part[0].stop
