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
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["weight_decay"]:
                for parameter in parameters:
                    if parameter.ndim >= 2:
                        parameter.mul_(1 - group["lr"] * group["weight_decay"])
            updates = self._muon(parameters, group) if group["muon"] else self._adamw(parameters, group)
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.add_(update, alpha=-group["lr"])
        return loss

    def _muon(self, parameters: list[torch.Tensor], group: dict) -> list[torch.Tensor]:
        """The updates of matrices, those of one shape made orthogonal together."""
        updates: list = [None] * len(parameters)
        shapes: dict[torch.Size, list[int]] = {}
        for i, parameter in enumerate(parameters):
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            updates[i] = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
            shapes.setdefault(updates[i].shape, []).append(i)
        for shape, indices in shapes.items():
            # Orthogonal matrices have a root mean square of 1 / sqrt(max(n, m)), AdamW's updates one of about 0.2.
            found = orthogonal(torch.stack([updates[i] for i in indices])).mul_(0.2 * max(shape) ** 0.5)
            for i, update in zip(indices, found, strict=True):
                updates[i] = update.view_as(parameters[i])
        return updates

    def _adamw(self, parameters: list[torch.Tensor], group: dict) -> list[torch.Tensor]:
        updates, (beta1, beta2) = [], group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state |= {"step": torch.zeros(())} | {k: torch.zeros_like(parameter) for k in ("mean", "square")}
            state["step"] += 1
            step = state["step"].item()
            mean = state["mean"].lerp_(parameter.grad, 1 - beta1)
            square = state["square"].lerp_(parameter.grad.square(), 1 - beta2)
            scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
            updates.append(mean / scale / (1 - beta1**step))
        return updates


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


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices, roughly: same singular vectors, singular values between about 0.7 and 1.2.

    Args:
        matrices: (count, n, m); together they take fewer and larger operations than one by one.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT.contiguous()  # the smaller Gram matrices of the two
    for _ in range(STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        x = torch.baddbmm(x, polynomial, x, beta=A)
    return x if wide else x.mT
