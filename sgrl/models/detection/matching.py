"""One-to-one assignment of queries to targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def assign(costs: Tensor, count: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest assignment of each frame.

    Args:
        costs: (B, N, G), copied to the CPU once. What is no number costs more than anything.
        count: how many of the G targets each frame has; the others are padding.

    Returns: for each frame queries, rising, and targets, as int64 on the CPU; min(N, count) of them.
    """
    costs = torch.nan_to_num(costs.detach().double(), nan=1e12, posinf=1e12, neginf=-1e12).cpu().numpy()
    found = (linear_sum_assignment(cost[:, :targets]) for cost, targets in zip(costs, count, strict=True))
    return [(torch.as_tensor(queries), torch.as_tensor(targets)) for queries, targets in found]
