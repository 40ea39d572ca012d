"""Non-maximum suppression, in NumPy: torchvision's needs its C++ operators, and knows no pairs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np


def overlaps(boxes: np.ndarray, pixel: float = 0.0) -> np.ndarray:
    """IoU of corners (N, 4) with each other, (N, N); `pixel` is added to every side. 0 where there is no area."""
    boxes = np.nan_to_num(np.asarray(boxes, np.float64).reshape(-1, 4))
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    inter = np.maximum(sides + pixel, 0).prod(-1)
    area = np.maximum(boxes[:, 2:] - boxes[:, :2] + pixel, 0).prod(-1)
    union = area[:, None] + area[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def kept(ranked: Iterable[tuple[int, Hashable]], near: np.ndarray) -> list[int]:
    """Which of a ranking stay, as positions in it, best first.

    ranked: (item, kind) with the best first. near: (N, N) bool, which items are nearly the same. One goes if a better
    one of its kind that stays is near it.
    """
    of_kind: dict[Hashable, list[int]] = {}
    stay = []
    for place, (item, kind) in enumerate(ranked):
        others = of_kind.setdefault(kind, [])
        if not (others and near[item, others].any()):
            others.append(item)
            stay.append(place)
    return stay
