"""The correction for vLLM's rounding from the pass that trains: TRL takes a forward pass of its own for it.

An answer that vLLM sampled counts by p(trainer) / p(vLLM) per token. TRL computes p(trainer) without gradients as soon
as the answers are there, and once more, with gradients, in the loss. Between the two nothing has changed where all
that is generated goes into one optimizer step and nothing is random, so the second serves for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from trl import GRPOConfig

MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""Of TRL's vllm_importance_sampling_mode."""


def follows_from_loss(args: GRPOConfig, model: nn.Module) -> bool:
    """Whether the pass of the loss has the log-probabilities that TRL would compute before it."""
    every = args.steps_per_generation * args.num_iterations
    return (
        args.use_vllm
        and args.vllm_importance_sampling_correction
        and args.vllm_importance_sampling_mode in MODES
        and args.gradient_accumulation_steps % every == 0
        and not drops_out(model)
    )


def drops_out(model: nn.Module) -> bool:
    """Whether two forward passes in training differ by what they leave out."""
    rates = (
        getattr(module, name, 0.0) or 0.0
        for module in model.modules()
        for name in (("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else ("attention_dropout", "dropout"))
    )
    return any(rate > 0 for rate in rates if isinstance(rate, float))


def ratios(
    logps: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor, args: GRPOConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much each token, or each answer, counts, and how far the two engines are apart.

    Args:
        logps, sampled: (answers, tokens) log-probabilities, the trainer's and vLLM's; NaN where vLLM has none.
        mask: (answers, tokens), 1 for tokens that the loss sees.
        args: how ratios are bounded.

    Returns:
        ratios (answers, tokens), or (answers, 1) in sequence modes; numbers (5,) for the log: mean and largest
        difference, least, mean and largest ratio, 0 where there is no token.
    """
    kind, how = args.vllm_importance_sampling_mode.split("_")
    low, high = args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max
    difference = torch.nan_to_num((logps - sampled) * mask, nan=0.0)
    if kind == "sequence":
        difference = difference.sum(-1, keepdim=True)
    found = difference.exp()
    if how == "truncate":
        found = found.clamp(min=low, max=high)
    else:
        outside = (found < (-math.inf if low is None else low)) | (found > (math.inf if high is None else high))
        found = found.masked_fill(outside, 0.0)
    apart = (logps - sampled).abs()[mask.bool() & ~sampled.isnan()]
    counted = found.flatten() if kind == "sequence" else found[mask.bool()]
    zero = found.new_zeros(())
    numbers = [apart.mean(), apart.max()] if apart.numel() else [zero, zero]
    numbers += [counted.min(), counted.mean(), counted.max()] if counted.numel() else [zero, zero, zero]
    return found, torch.stack(numbers)
