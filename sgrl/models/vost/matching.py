"""Which query answers for which pair of the reference (OED's costs, Hungarian algorithm)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sgrl.models.detection.boxes import generalized_iou_of_pairs, to_corners
from sgrl.models.detection.matching import assign

GROUPS = ("attention", "spatial", "contacting")
Outputs = Mapping[str, Tensor]
Target = Mapping[str, Tensor]
Indices = list[tuple[Tensor, Tensor]]


class CostWeights(NamedTuple):
    """Of the terms of a cost."""

    object: float = 1.0
    relation: float = 1.0
    box: float = 2.5
    giou: float = 1.0


def pair_costs(outputs: Outputs, target: Target, weights: CostWeights = CostWeights()) -> Tensor:  # noqa: B008
    """What it costs that a query answers for a pair, (N, G); less is better.

    Args:
        outputs: object_logits (N, C+1), attention_logits (N, 4), spatial_logits, contacting_logits, subject_boxes,
            object_boxes (N, 4) as centres in 0..1.
        target: labels (G,), subject_boxes, object_boxes (G, 4), and attention, spatial, contacting (G, .) of 0 and 1.
    """
    batched = {name: outputs[name][None] for name in _NEEDED}
    return batch_costs(batched, {name: value[None] for name, value in target.items()}, weights)[0]


_NEEDED = ("object_logits", *(f"{group}_logits" for group in GROUPS), "subject_boxes", "object_boxes")


def batch_costs(outputs: Outputs, targets: Target, weights: CostWeights) -> Tensor:
    """The same of a batch in one tensor, (B, N, G), where all targets are padded to G pairs."""
    labels = targets["labels"].long()[:, None].expand(-1, outputs["object_logits"].shape[1], -1)
    cost = -weights.object * outputs["object_logits"].softmax(-1).gather(2, labels)
    probabilities = {
        "attention": outputs["attention_logits"].softmax(-1)[..., :-1],
        "spatial": outputs["spatial_logits"].sigmoid(),
        "contacting": outputs["contacting_logits"].sigmoid(),
    }
    for name, p in probabilities.items():
        y = _table(targets[name], p)
        cost = cost - weights.relation / 2 * (_agreement(p, y) + _agreement(1 - p, 1 - y))
    distances, overlaps = [], []
    for name in ("subject_boxes", "object_boxes"):
        found, wanted = outputs[name][:, :, None], targets[name].reshape(len(p), 1, -1, 4).to(p.dtype)
        distances.append((found - wanted).abs().sum(-1))
        overlaps.append(-generalized_iou_of_pairs(to_corners(found), to_corners(wanted)))
    return cost + weights.box * torch.maximum(*distances) + weights.giou * torch.maximum(*overlaps)


def _table(given: Tensor, like: Tensor) -> Tensor:
    """(B, G, R), also for targets without pairs, whose tables have lost their width."""
    return given.to(like.dtype).reshape(len(like), -1, like.shape[-1])


def _agreement(p: Tensor, y: Tensor) -> Tensor:
    """(B, N, R), (B, G, R) -> (B, N, G): how much of what holds is said."""
    return p @ y.transpose(1, 2) / (y.sum(-1)[:, None] + 1e-4)


@torch.no_grad()
def match(outputs: Outputs, targets: Sequence[Target], weights: CostWeights = CostWeights()) -> Indices:  # noqa: B008
    """For each frame of a batch the queries, rising, and the targets that they answer for.

    outputs: as in `pair_costs`, with a batch in front; targets: one of each frame. Of more targets than queries as
    many as there are queries are matched.
    """
    count = [len(target["labels"]) for target in targets]
    padded = {name: _padded([target[name] for target in targets], count) for name in targets[0]} if targets else {}
    if not any(count):
        empty = torch.zeros(0, dtype=torch.long)
        return [(empty, empty)] * len(count)
    return assign(batch_costs(outputs, {name: padded[name] for name in _TARGET}, weights), count)


_TARGET = ("labels", "subject_boxes", "object_boxes", *GROUPS)


def _padded(values: Sequence[Tensor], count: Sequence[int]) -> Tensor:
    """(G_i, ...) of all frames as (B, G, ...)."""
    filled = next((value for value, rows in zip(values, count, strict=True) if rows), values[0])
    padded = filled.new_zeros(len(values), max(count), *filled.shape[1:])
    for place, (value, rows) in enumerate(zip(values, count, strict=True)):
        if rows:
            padded[place, :rows] = value
    return padded
