"""Boxes as tensors, in any floating-point type, with gradients that are numbers for every box.

"Corners" are x1, y1, x2, y2; "centres" are cx, cy, width, height. `sgrl.boxes` has the same overlaps for NumPy.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 1e9
"""Coordinates beyond it count as it: areas of such boxes would not be numbers."""


def to_corners(boxes: Tensor) -> Tensor:
    """Centres (..., 4) as corners."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Corners (..., 4) as centres."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def flipped(boxes: Tensor) -> Tensor:
    """Centres (..., 4) in 0..1 in the image that is mirrored left to right."""
    return torch.cat([1 - boxes[..., :1], boxes[..., 1:]], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Of corners, (..., 4) -> (...); 0 where they are swapped."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of corners. a (N, 4), b (M, 4) -> (N, M) in [0, 1]; 0 where the union has no area."""
    inter, union = _overlap(*(_finite(boxes) for boxes in (a[:, None], b[None])))
    return _ratio(inter, union)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019, eq. 1-2) of corners. a (N, 4), b (M, 4) -> (N, M) in [-1, 1].

    Never NaN, and no error: swapped corners have no area, infinite coordinates are large ones. Two boxes without area
    have -1, or 0 if there is nothing around them either.
    """
    return generalized_iou_of_pairs(a[:, None], b[None])


def generalized_iou_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The same of boxes that stand at the same place: (..., 4), (..., 4) -> (...), broadcast."""
    a, b = _finite(a), _finite(b)
    inter, union = _overlap(a, b)
    sides = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = sides[..., 0] * sides[..., 1]
    return _ratio(inter, union) - _ratio(hull - union, hull)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    return inter, area(a) + area(b) - inter


def _finite(boxes: Tensor) -> Tensor:
    return torch.nan_to_num(boxes, nan=0.0, posinf=LARGEST, neginf=-LARGEST).clamp(-LARGEST, LARGEST)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where the whole is nothing; with a gradient there, which a plain `where` would make NaN."""
    some = whole > torch.finfo(whole.dtype).tiny ** 0.5  # the gradient squares it
    return torch.where(some, part / torch.where(some, whole, torch.ones_like(whole)), torch.zeros_like(whole))
