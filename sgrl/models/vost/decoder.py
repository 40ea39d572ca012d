"""DETR's decoder with content of one's own, and masks for attention."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

UNSEEN = -1e4
"""Added to the scores of what may not be seen: its weight is exactly 0 in every type, and a row that may see nothing
is an even mean, where minus infinity were not a number."""


def additive_mask(valid: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(B, S) bool, True for what is there, as an attention mask (B, 1, 1, S)."""
    if valid is None:
        return None
    return torch.zeros_like(valid, dtype=dtype).masked_fill(~valid, UNSEEN)[:, None, None]


def decode(
    layers: Iterable[nn.Module],
    norm: nn.Module,
    content: Tensor,
    query_position: Tensor,
    memory: Tensor,
    memory_position: Tensor,
    memory_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:
    """The states of all layers (L, B, N, d), each normed; the stream from layer to layer is not.

    Content is what goes through the layers. Positions are added to what is compared, in every layer: to queries and
    keys of self-attention, to queries and keys of cross-attention, never to values.

    Args:
        layers: transformers' `DetrDecoderLayer`. norm: of each recorded state.
        content: (B, N, d). query_position: (N, d) or (B, N, d).
        memory: (B, S, d). memory_position: (S, d) or (B, S, d).
        memory_mask: (B, S) bool, query_mask: (B, N) bool; True for what is there. None: everything.
    """
    seen = additive_mask(memory_mask, memory.dtype)
    queries = additive_mask(query_mask, content.dtype)
    query_position = query_position.expand_as(content)
    memory_position = memory_position.expand_as(memory)
    states = []
    for layer in layers:
        content = layer(
            content,
            attention_mask=queries,
            spatial_position_embeddings=memory_position,
            object_queries_position_embeddings=query_position,
            encoder_hidden_states=memory,
            encoder_attention_mask=seen,
        )
        states.append(norm(content))
    return torch.stack(states)
