"""The total of all layers' losses, with the matching of a whole batch in one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgrl.models.vost.losses import criterion, pairs_per_process
from sgrl.models.vost.matching import Indices, Target, match


def objective(
    said: Mapping[str, Tensor], last: Mapping[str, Tensor], targets: Sequence[Target], given: str | None
) -> dict[str, Tensor]:
    """All terms, and their weighted sum as "total".

    Args:
        said: (layers, B, N, .), what each layer says. last: what the last one says, with what was given.
        targets: of each frame. given: see `criterion`; where something is given, pairs need no matching.

    Returns: the terms of the last layer by name, and of the others each layer's total as "layer_<number>".
    """
    device = last["object_logits"].device
    count = pairs_per_process(targets, device)
    layers = len(said["object_logits"])
    indices = _indices(said, targets, given, layers)
    losses = criterion(last, targets, indices[-1], count=count, given=given)
    for layer in range(layers - 1):
        outputs = {name: value[layer] for name, value in said.items()}
        if "mask" in last:
            outputs["mask"] = last["mask"]
        total = criterion(outputs, targets, indices[layer], count=count, given=given)["total"]
        losses[f"layer_{layer}"] = total.detach()
        losses["total"] = losses["total"] + total
    return losses


def _indices(said: Mapping[str, Tensor], targets: Sequence[Target], given: str | None, layers: int) -> list[Indices]:
    if given is None:
        flat = {name: value.flatten(0, 1) for name, value in said.items()}
        found = match(flat, list(targets) * layers)
        return [found[layer * len(targets) : (layer + 1) * len(targets)] for layer in range(layers)]
    identity = []
    for target in targets:
        rows = torch.arange(len(target["labels"]))
        identity.append((target["pairs"].cpu().long() if "pairs" in target else rows, rows))
    return [identity] * layers
