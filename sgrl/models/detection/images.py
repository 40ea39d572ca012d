"""Images as tensors, and back to batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DetrImageProcessor

SHORT, LONG = 600, 1000
"""Pixels of the sides (OED's)."""


def image_processor(short: int = SHORT, long: int = LONG) -> DetrImageProcessor:
    """Resizes so that the short side has `short` pixels, unless the long one then had more than `long`; normalises by
    ImageNet's mean and deviation. A folder of a model holds it as preprocessor_config.json."""
    return DetrImageProcessor(size={"shortest_edge": short, "longest_edge": long}, do_pad=False)


def to_tensor(image, processor: DetrImageProcessor, flip: bool = False) -> Tensor:
    """A PIL image as (3, H, W); `flip`: mirrored left to right."""
    pixels = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels.flip(-1) if flip else pixels


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, H_i, W_i) as (B, 3, H, W), zeros behind each, and the mask (B, H, W), 1 where there is an image."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    pixels = images[0].new_zeros(len(images), 3, height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.long)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        mask[i, : image.shape[1], : image.shape[2]] = 1
    return pixels, mask
