"""The temporal stage (OED's, which the paper keeps): a frame's pairs look at those of frames around it.

Frames are counted among the annotated ones of their video.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

PERCENTS = (80, 50, 30)
"""How many of the reference rows each layer sees, the best first."""


def reference_frames(frames: int, index: int, references: int, window: int) -> list[int]:
    """The frames that a frame looks at in tests.

    Args:
        frames: how many the video has. index: the frame. references: how many are wanted. window: on each side.

    Returns: positions, spread over the window in order; repeated in order where there are fewer, the frame itself
    where it is alone.
    """
    around = _around(frames, index, window)
    if len(around) < references:
        return [around[i % len(around)] for i in range(references)]
    step = (len(around) - 1) // (references - 1) if references > 1 else 1
    return around[::step][:references] if step else around[:references]


def sample_references(frames: int, index: int, references: int, window: int, rng: random.Random) -> list[int]:
    """The same in training: drawn without replacement from the window, which is doubled while it has too few."""
    around = _around(frames, index, window)
    while len(around) < references:
        around = around + around
    return rng.sample(around, references)


def _around(frames: int, index: int, window: int) -> list[int]:
    near = range(max(0, index - window), min(frames, index + window + 1))
    return [frame for frame in near if frame != index] or [index]


def reference_scores(outputs: Mapping[str, Tensor]) -> Tensor:
    """How sure the spatial heads are of each pair: (..., R) from logits (..., R, .), the product over the heads."""
    found = outputs["object_logits"].softmax(-1)[..., :-1].amax(-1)
    found = found * outputs["attention_logits"].softmax(-1)[..., :-1].amax(-1)
    for name in ("spatial_logits", "contacting_logits"):
        found = found * outputs[name].sigmoid().amax(-1)
    return found


def select_references(scores: Tensor, percents: Sequence[int] = PERCENTS) -> list[Tensor]:
    """The best rows for each layer, best first, equal ones by position: (..., R) -> tensors (..., k).

    k is the percentage of R, rounded up, and at least 1.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    rows = scores.shape[-1]
    return [order[..., : max(1, -(-rows * percent // 100))] for percent in percents]


def same_class_mask(current: Tensor, references: Tensor) -> Tensor:
    """Which references each query may see: (..., Q), (..., R) -> (..., Q, R) bool.

    Those of its own class; all of them, where there is none.
    """
    same = current[..., :, None] == references[..., None, :]
    return same | ~same.any(dim=-1, keepdim=True)


class TemporalLayer(nn.Module):
    """A layer of attention among the queries, then to the references, then of a network for each; norms come last.

    Args:
        size: D, of a pair (2 d). heads: of attention. feedforward: inner size. dropout: in [0, 1].
    """

    def __init__(self, size: int, heads: int, feedforward: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(size, heads, dropout=dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(size)
        self.cross_attention = nn.MultiheadAttention(size, heads, dropout=dropout, batch_first=True)
        self.cross_norm = nn.LayerNorm(size)
        self.expand = nn.Linear(size, feedforward)
        self.reduce = nn.Linear(feedforward, size)
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, references: Tensor, allowed: Tensor | None = None, query_mask: Tensor | None = None
    ) -> Tensor:
        """(B, Q, D), (B, R, D) -> (B, Q, D).

        allowed: (Q, R) or (B, Q, R) bool, True where a query may see a reference; at least one for each query.
        query_mask: (B, Q) bool, the queries that are there.
        """
        hidden = None if query_mask is None else ~(query_mask | ~query_mask.any(dim=1, keepdim=True))
        attended, _ = self.self_attention(query, query, query, key_padding_mask=hidden, need_weights=False)
        query = self.self_norm(query + self.dropout(attended))
        mask = None if allowed is None else ~allowed
        if mask is not None and mask.dim() == 3:
            mask = mask.repeat_interleave(self.cross_attention.num_heads, dim=0)
        attended, _ = self.cross_attention(query, references, references, attn_mask=mask, need_weights=False)
        query = self.cross_norm(query + self.dropout(attended))
        return self.norm(query + self.dropout(self.reduce(self.dropout(torch.relu(self.expand(query))))))
