"""The answers to one prompt share its image, and GRPO's passes would see it as often: here, once.

For the families whose vision tower takes the patches of all images in a row, and their grids (Qwen's); the others see
each copy.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def are_groups(prompts: list, images: list[list | None] | None, size: int) -> bool:
    """Whether each `size` prompts in a row are one, their images included.

    Args:
        prompts: token ids or messages of each.
        images: those of each, as Pillow's; None where there are none, or messages hold them.
    """
    if len(prompts) % size:
        return False
    firsts = [i - i % size for i in range(len(prompts))]
    if any(prompts[i] != prompts[first] for i, first in enumerate(firsts)):
        return False
    return images is None or all(_equal(images[i], images[first]) for i, first in enumerate(firsts))


def _equal(images: list | None, others: list | None) -> bool:
    """Lists of images of one prompt each; by pixels."""
    if images is others or images is None or others is None:
        return images is others
    return len(images) == len(others) and all(map(operator.eq, images, others))


def see_images_once(model: nn.Module) -> bool:
    """From now on equal images of a batch go through the vision tower together; False for one of another kind."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "visual" and "grid_thw" in inspect.signature(module.forward).parameters:
            module.forward = _Once(module.forward)
            return True
    return False


class _Once:
    """Stands for the `forward` of a vision tower."""

    def __init__(self, forward: Callable[..., Any]):
        self.forward = forward

    def __call__(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        rows = grid_thw.prod(-1).tolist()
        images = hidden_states.split(rows)
        places = first_places(images)
        kept = sorted(set(places))
        if len(kept) == len(images):
            return self.forward(hidden_states, grid_thw=grid_thw, **kwargs)
        found = self.forward(torch.cat([images[i] for i in kept]), grid_thw=grid_thw[kept], **kwargs)
        of = [kept.index(place) for place in places]
        sizes = [rows[i] for i in kept]
        for name, value in found.items():
            found[name] = _spread(value, sizes, of)
        return found


def first_places(images: tuple[torch.Tensor, ...]) -> list[int]:
    """For each image the place of the first that equals it."""
    sums = torch.stack([image.sum(dtype=torch.float64) for image in images]).tolist()
    seen: dict[tuple, list[int]] = {}
    places = []
    for i, image in enumerate(images):
        like = seen.setdefault((image.shape, sums[i]), [])
        place = next((other for other in like if torch.equal(images[other], image)), i)
        if place == i:
            like.append(i)
        places.append(place)
    return places


def _spread(value: Any, sizes: list[int], of: list[int]) -> Any:
    """Features of distinct images, in the order `of` all. sizes: patches of each, of which some are merged."""
    if isinstance(value, list | tuple):
        return type(value)(_spread(one, sizes, of) for one in value)
    merged = sum(sizes) // len(value)
    parts = value.split([size // merged for size in sizes])
    return torch.cat([parts[i] for i in of])
