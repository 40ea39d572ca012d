"""What is learnt from: objects, relations of three groups, and both boxes of each pair (OED's losses)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import sigmoid_focal_loss

from sgrl.models.detection.boxes import generalized_iou_of_pairs, to_corners
from sgrl.models.vost.matching import GROUPS, Indices, Outputs, Target


class LossWeights(NamedTuple):
    """Of the terms of the total, and what the terms themselves need."""

    object: float = 1.0
    relation: float = 2.0
    box: float = 2.5
    giou: float = 1.0
    no_object: float = 0.1
    alpha: float = 0.5
    gamma: float = 2.0


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.5, gamma: float = 2.0) -> Tensor:
    """The focal loss of (M, R) logits and 0/1, summed, per label that holds (at least 1)."""
    targets = targets.to(logits.dtype).reshape(logits.shape)
    total = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="sum")
    return total / targets.sum().clamp(min=1)


def object_loss(logits: Tensor, labels: Tensor, no_object_weight: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy over classes and "no object", the last one, whose weight is smaller; the weighted mean.

    logits: (B, N, C+1). labels: (B, N). mask: (B, N) bool, the queries that count; None: all.
    """
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    if mask is not None:
        logits, labels = logits[mask], labels[mask]
    if not labels.numel():
        return logits.sum() * 0
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).long(), weight)


def attention_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over four logits, the last of which is never meant; mean over the pairs with an attention label.

    logits: (M, 4). targets: (M, 3) of 0 and 1; several labels of a pair share equally. Without any label: 0.
    """
    targets = targets.to(logits.dtype).reshape(len(logits), logits.shape[-1] - 1)
    labels = targets.sum(-1)
    each = -(targets * logits.log_softmax(-1)[:, :-1]).sum(-1) / labels.clamp(min=1)
    return each.sum() / (labels > 0).sum().clamp(min=1)


def box_losses(boxes: Tensor, targets: Tensor, count: Tensor | float) -> tuple[Tensor, Tensor]:
    """L1 of centres and 1 - GIoU, each summed over (M, 4) boxes and divided by `count`."""
    targets = targets.to(boxes.dtype).reshape(boxes.shape)
    giou = generalized_iou_of_pairs(to_corners(boxes), to_corners(targets))
    return (boxes - targets).abs().sum() / count, (1 - giou).sum() / count


def pairs_per_process(targets: Sequence[Target], device: torch.device) -> Tensor:
    """How many pairs the targets have, the mean over processes, at least 1. Every process must ask."""
    count = torch.tensor(float(sum(len(target["labels"]) for target in targets)), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)


def criterion(
    outputs: Outputs,
    targets: Sequence[Target],
    indices: Indices,
    weights: LossWeights = LossWeights(),  # noqa: B008
    count: Tensor | float | None = None,
    given: str | None = None,
) -> dict[str, Tensor]:
    """All losses of one layer.

    Args:
        outputs: as in `sgrl.models.vost.matching.match`. targets: of each frame. indices: what `match` gives.
        count: see `pairs_per_process`, which is asked if it is None.
        given: what the model is told, and need not be learnt: "classes" (PredCLS: no boxes, objects of matched queries
            only), "boxes" (SGCLS: no boxes, objects of the queries of `outputs["mask"]`), or None.

    Returns: object, attention, spatial, contacting, subject_box, object_box, subject_giou, object_giou, and total,
    which is weighted. Without a pair all but object are 0, and every output still has a gradient.
    """
    logits = outputs["object_logits"]
    device = logits.device
    frames = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(indices)]).to(device)
    queries = torch.cat([queries for queries, _ in indices]).to(device)

    def matched(name: str) -> Tensor:
        kept = [
            target[name][found.to(target[name].device)] for target, (_, found) in zip(targets, indices, strict=True)
        ]
        kept = [value for value in kept if len(value)]  # what is empty may have lost its shape
        return torch.cat(kept).to(device) if kept else logits.new_zeros(0)

    labels = torch.full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long, device=device)
    labels[frames, queries] = matched("labels").long()
    mask = outputs.get("mask") if given == "boxes" else None
    if given == "classes":
        mask = torch.zeros_like(labels, dtype=torch.bool)
        mask[frames, queries] = True
    said = {name: outputs[f"{name}_logits"][frames, queries] for name in GROUPS}
    losses = {
        "object": object_loss(logits, labels, weights.no_object, mask),
        "attention": attention_loss(said["attention"], matched("attention")),
        **{n: focal_loss(said[n], matched(n), weights.alpha, weights.gamma) for n in ("spatial", "contacting")},
    }
    total = weights.object * losses["object"] + weights.relation * sum(losses[name] for name in GROUPS)
    if given is None:
        count = pairs_per_process(targets, device) if count is None else count
        for name in ("subject", "object"):
            boxes = outputs[f"{name}_boxes"][frames, queries]
            box, giou = box_losses(boxes, matched(f"{name}_boxes"), count)
            losses[f"{name}_box"], losses[f"{name}_giou"] = box, giou
            total = total + weights.box * box + weights.giou * giou
    return {**losses, "total": total}
