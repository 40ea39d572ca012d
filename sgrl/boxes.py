"""Boxes as arrays: overlap, distance, and the coordinate frames that models read and write.

A box is x1, y1, x2, y2, half-open: its area is (x2 - x1) * (y2 - y1), with no "+1 pixel".
"""

from __future__ import annotations

import numpy as np

COORDS = ("pixel", "norm1000")
"""Coordinate frames of a text: pixels of the image that the model sees, or thousandths of its width and height."""


_FAR = np.array([1.0, 1.0, -1.0, -1.0])
_SMALLEST = 5e-324


def _rows(boxes) -> np.ndarray:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def area(boxes) -> np.ndarray:
    """(N, 4) -> (N,); 0 for a box whose corners are swapped."""
    boxes = _rows(boxes)
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0.0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0.0)


def _overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    size = np.maximum(size, 0.0)
    inter = size[..., 0] * size[..., 1]
    return inter, area(a)[:, None] + area(b)[None, :] - inter


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def iou(a, b) -> np.ndarray:
    """Intersection over union. a (N, 4), b (M, 4) -> (N, M) in [0, 1]; 0 where the union has no area."""
    a, b = _far_negated(a), _far_negated(b)
    return _iou(np.maximum(a[:, :, None], b[:, None, :]), _area(a)[:, None] + _area(b))


def iou_of_pairs(a, b, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """IoU of chosen pairs, as `iou`. a (N, 4), b (M, 4), i and j (P,) positions in a and b -> (P,)."""
    a, b = _far_negated(a), _far_negated(b)
    return _iou(np.maximum(a.take(i, axis=1), b.take(j, axis=1)), _area(a).take(i) + _area(b).take(j))


# With the far corners negated, one maximum gives both corners of an overlap, and half the sums minus its sides: half
# of the calls, which is what the few boxes of an image cost.


def _far_negated(boxes) -> np.ndarray:
    return (_rows(boxes) * _FAR).T.copy()


def _area(a: np.ndarray) -> np.ndarray:
    sides = np.minimum(a[:2] + a[2:], 0.0)
    return sides[0] * sides[1]


def _iou(corners: np.ndarray, union: np.ndarray) -> np.ndarray:
    sides = corners[:2] + corners[2:]
    np.minimum(sides, 0.0, out=sides)
    inter = sides[0] * sides[1]
    union -= inter
    np.maximum(union, _SMALLEST, out=union)  # where the union has no area, the overlap has none either
    inter /= union
    return inter


def giou(a, b) -> np.ndarray:
    """Generalised IoU (Rezatofighi et al., 2019, eq. 1-2). a (N, 4), b (M, 4) -> (N, M) in [-1, 1]."""
    a, b = _rows(a), _rows(b)
    inter, union = _overlap(a, b)
    size = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    size = np.maximum(size, 0.0)
    hull = size[..., 0] * size[..., 1]
    return _ratio(inter, union) - _ratio(hull - union, hull)


def l1(a, b, width: float, height: float) -> np.ndarray:
    """Sum of |dx| / width and |dy| / height over both corners. a (N, 4), b (M, 4) -> (N, M), 0 for equal boxes."""
    distance = np.abs(_rows(a)[:, None, :] - _rows(b)[None, :, :])
    return (distance / np.array([width, height, width, height], dtype=np.float64)).sum(axis=2)


def scale(boxes, from_size: tuple[float, float], to_size: tuple[float, float]) -> np.ndarray:
    """Boxes (N, 4) of an image of `from_size` (width, height) in the coordinates of the same image at `to_size`."""
    # multiplying first keeps whole numbers whole: 640 of 640 pixels is 1000 of 1000
    return _rows(boxes) * np.array([*to_size, *to_size]) / np.array([*from_size, *from_size])
