"""The bank of features that predicate queries look at (multi-modal feature bank, eq. 9 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgrl.models.vost.geometry import GEOMETRY_SIZE

KINDS = ("null", "v_sub", "t_sub", "v_obj", "t_obj", "v_pred", "t_pred", "s")
"""Of tokens, in their order within a pair: visual and textual ones of subject, object and predicate, and geometry."""

_WITHOUT_VISUAL = [KINDS.index(name) - 1 for name in KINDS[1:] if not name.startswith("v")]


def sine_positions(numbers: Tensor, size: int) -> Tensor:
    """(T,) -> (T, size): sines and cosines in turn, with wavelengths from 2 pi to 10000 * 2 pi."""
    powers = torch.arange(0, size, 2, device=numbers.device, dtype=numbers.dtype) / size
    angles = numbers[:, None] / 10000**powers
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]


class FeatureBank(nn.Module):
    """A learned null token, which is always valid, and the tokens of each pair.

    Seven tokens a pair, four without regions. A token's kind is a learned vector that is added to it; its position is
    that of its pair, which binds the tokens of a pair and does not depend on padding.

    Args:
        text_size: L. visual_size: V of the regions, None for a bank without. hidden_size: d.
    """

    def __init__(self, text_size: int, visual_size: int | None, hidden_size: int):
        super().__init__()
        self.text = nn.Linear(text_size, hidden_size)
        self.visual = None if visual_size is None else nn.Linear(visual_size, hidden_size)
        self.geometry = nn.Linear(GEOMETRY_SIZE, hidden_size)
        self.null = nn.Parameter(torch.empty(hidden_size))
        self.kinds = nn.Parameter(torch.empty(len(KINDS), hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Of the two vectors that are in no layer."""
        nn.init.normal_(self.null, std=0.02)
        nn.init.normal_(self.kinds, std=0.02)

    def forward(
        self, text: Tensor, predicate: Tensor, visual: Tensor | None, geometry: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, positions, and which tokens are there.

        Args:
            text: (B, P, 2, L), of subject and object. predicate: (B, P, d), projected already.
            visual: (B, P, 3, V), of subject, object and both; None without. geometry: (B, P, 12).
            mask: (B, P) bool, the pairs that are there.

        Returns: (B, 1 + kP, d), (1 + kP, d), (B, 1 + kP) bool, where k is 7, or 4 without regions.
        """
        shape = mask.shape  # without pairs, tensors made of lists have lost theirs
        predicate, geometry = predicate.reshape(*shape, self.null.numel()), geometry.reshape(*shape, GEOMETRY_SIZE)
        subject, object = self.text(text.reshape(*shape, 2, self.text.in_features)).unbind(2)
        if visual is None or self.visual is None:
            parts, kinds = [subject, object, predicate], _WITHOUT_VISUAL
        else:
            v_subject, v_object, v_both = self.visual(visual.reshape(*shape, 3, self.visual.in_features)).unbind(2)
            parts = [v_subject, subject, v_object, object, v_both, predicate]
            kinds = list(range(len(KINDS) - 1))
        pairs = torch.stack([*parts, self.geometry(geometry)], dim=2) + self.kinds[1:][kinds]
        batch, count, each = pairs.shape[:3]
        null = (self.null + self.kinds[0]).expand(batch, 1, -1)
        tokens = torch.cat([null, pairs.flatten(1, 2)], dim=1)
        numbers = torch.arange(1, count + 1, device=mask.device).repeat_interleave(each)
        numbers = torch.cat([numbers.new_zeros(1), numbers]).to(tokens.dtype)
        valid = torch.cat([mask.new_ones(batch, 1), mask.repeat_interleave(each, dim=1)], dim=1)
        return tokens, sine_positions(numbers, tokens.shape[-1]), valid
