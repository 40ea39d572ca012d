"""Content of queries from what a language model said of a frame (dual-source semantic query initialisation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def predicate_text(present: Tensor, table: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """One vector for the predicates of a pair: the mean over groups of the mean within each, of length 1.

    A pair has several predicates where the paper has one vector; a group with many labels must not outvote the others.

    Args:
        present: (..., R) bool, the predicates that hold.
        table: (R, L), a vector for each.
        groups: columns of each group; those in none are left out.

    Returns: (..., L) in the type of the table; zeros where no predicate holds.
    """
    means = []
    for columns in groups:
        held = present[..., list(columns)].to(table.dtype)
        means.append(held @ table[list(columns)] / held.sum(dim=-1, keepdim=True).clamp(min=1))
    total = sum(means) if means else table.new_zeros(*present.shape[:-1], table.shape[-1])
    return nn.functional.normalize(total, dim=-1)  # the direction of a sum is that of the mean


class ContentQueries(nn.Module):
    """Vectors of texts as the content of queries: pair i of the priors fills slot i.

    Args:
        text_size: L, of the text encoder. hidden_size: d. slots: N, the number of queries.
    """

    def __init__(self, text_size: int, hidden_size: int, slots: int):
        super().__init__()
        self.slots = slots
        self.pair_projection = nn.Linear(2 * text_size, hidden_size)
        self.predicate_projection = nn.Linear(text_size, hidden_size)

    def pair(self, subject: Tensor, object: Tensor, mask: Tensor) -> Tensor:
        """Content of the pair decoder.

        Args:
            subject, object: (B, P, L), texts of both classes.
            mask: (B, P) bool, the pairs that are there.

        Returns: (B, N, d). Pairs beyond N are left out; slots without a pair are exactly 0, as without priors.
        """
        return self.slotted(self.pair_projection(torch.cat([subject, object], dim=-1)), mask)

    def predicate(self, text: Tensor, mask: Tensor) -> Tensor:
        """Content of the predicate decoder, likewise, from texts (B, P, L)."""
        return self.slotted(self.predicate_projection(text), mask)

    def slotted(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """(B, P, d) -> (B, N, d), zeros where there is no pair."""
        vectors = vectors.masked_fill(~mask[..., None], 0)[:, : self.slots]
        return nn.functional.pad(vectors, (0, 0, 0, self.slots - vectors.shape[1]))
