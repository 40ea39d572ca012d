"""Pairs of boxes as numbers (the multi-modal feature bank, eq. 8 of the paper), and boxes in mirrored images."""

from __future__ import annotations

import torch
from torch import Tensor

from sgrl.models.detection.boxes import flipped, generalized_iou

__all__ = ["GEOMETRY_SIZE", "flipped", "flipped_geometry", "generalized_iou", "pair_geometry"]

GEOMETRY_SIZE = 12


def pair_geometry(subject: Tensor, object: Tensor) -> Tensor:
    """What is known of a pair without looking at it.

    Args:
        subject, object: boxes (..., 4) as cx, cy, width, height in 0..1.

    Returns: (..., 12): both boxes, the difference of their centres (subject - object), the area of each.
    """
    between = subject[..., :2] - object[..., :2]
    areas = [(box[..., 2] * box[..., 3]).unsqueeze(-1) for box in (subject, object)]
    return torch.cat([subject, object, between, *areas], dim=-1)


def flipped_geometry(geometry: Tensor) -> Tensor:
    """`pair_geometry` (..., 12) of the same pair in the image that is mirrored left to right."""
    return pair_geometry(flipped(geometry[..., :4]), flipped(geometry[..., 4:8]))
