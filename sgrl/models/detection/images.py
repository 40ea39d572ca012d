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


def to_bytes(image, processor: DetrImageProcessor) -> Tensor:
    """A PIL image as (3, H, W) of 8 bits, resized; `padded` does the rest."""
    found = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt")
    return found["pixel_values"][0].round().clamp(0, 255).byte()


def padded(images: Sequence[Tensor], processor: DetrImageProcessor) -> tuple[Tensor, Tensor]:
    """A batch of images (3, H_i, W_i) of 8 bits: normalised, (B, 3, H, W), with zeros behind each, and the mask
    (B, H, W), 1 where there is an image."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    pixels = torch.zeros(len(images), 3, height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.long)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        mask[i, : image.shape[1], : image.shape[2]] = 1
    mean, deviation = (torch.tensor(value)[:, None, None] for value in (processor.image_mean, processor.image_std))
    pixels.mul_(processor.rescale_factor / deviation).sub_(mean / deviation).mul_(mask[:, None])
    return pixels, mask
