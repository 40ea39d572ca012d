"""Muon for weight matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes each matrix's update orthogonal, so that
rare directions of a gradient count as much as common ones. A model with random weights learns to see sooner with it:
on the toy world 300 steps bring it as far as AdamW gets in more than 700. The update has the root mean square of
AdamW's (Liu et al. 2025, arXiv:2502.16982), so one learning rate serves both halves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import nn

from sgrl.errors import SgrlError

# Newton-Schulz coefficients of the reference implementation: five steps bring all singular values near 1.
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5


class Muon(torch.optim.Optimizer):
    """One optimizer for a whole model.

    Args:
        named_parameters: of the model. Matrices and convolution kernels get Muon; embeddings, norms, biases and the
            output layer, whose rows are tokens, get AdamW.
        lr: learning rate of both.
        betas, eps: of AdamW.
        momentum: of Muon (Nesterov's).
        weight_decay: decoupled, on everything that has two dimensions or more.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
        matrices = [parameter for name, parameter in trained if is_matrix(name, parameter)]
        rest = [parameter for name, parameter in trained if not is_matrix(name, parameter)]
        groups = [{"params": matrices, "muon": True}, {"params": rest, "muon": False}]
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One update; returns the loss of `closure` where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim >= 2:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._muon(parameter, group) if group["muon"] else self._adamw(parameter, group)
                parameter.add_(update, alpha=-group["lr"])
        return loss

    def _muon(self, parameter: torch.Tensor, group: dict) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        update = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
        # An orthogonal n x m matrix has a root mean square of 1 / sqrt(max(n, m)), AdamW's update one of about 0.2.
        return orthogonal(update).mul_(0.2 * max(update.shape) ** 0.5).view_as(parameter)

    def _adamw(self, parameter: torch.Tensor, group: dict) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        mean = state["mean"].lerp_(parameter.grad, 1 - beta1)
        square = state["square"].lerp_(parameter.grad.square(), 1 - beta2)
        scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        return mean / scale / (1 - beta1**step)


def muon(model: nn.Module, args) -> Muon:
    """The optimizer with the settings of a trainer's `args`.

    Raises:
        SgrlError: with DeepSpeed or FSDP, which cut matrices into pieces.
    """
    launched = (os.environ.get(f"ACCELERATE_USE_{name}", "false") for name in ("DEEPSPEED", "FSDP"))
    if args.deepspeed or args.fsdp or "true" in map(str.lower, launched):
        raise SgrlError("muon needs whole matrices, which DeepSpeed and FSDP cut into pieces; set `muon: false`")
    betas = (args.adam_beta1, args.adam_beta2)
    return Muon(model.named_parameters(), args.learning_rate, betas, args.adam_epsilon, weight_decay=args.weight_decay)


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter maps vectors to vectors, other than to or from tokens or positions."""
    lookup = ("embed_tokens", "lm_head", "pos_embed", "position_embedding")
    return parameter.ndim >= 2 and not any(part in name for part in lookup)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrix, roughly: same singular vectors, singular values between about 0.7 and 1.2."""
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T  # the smaller Gram matrix of the two
    for _ in range(STEPS):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x if wide else x.T
