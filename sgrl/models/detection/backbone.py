"""Networks that make a map of features of an image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, PreTrainedConfig
from transformers.models.detr.modeling_detr import replace_batch_norm

FROZEN_STAGES = ("embedder.", "encoder.stages.0.")
"""Of a pretrained ResNet what DETR never trains: the stem and the first stage."""


class Backbone(nn.Module):
    """One of transformers' backbones, without the freezing of `DetrConvEncoder`, which freezes all of it.

    Args:
        config: of the backbone. frozen_norm: batch norms are constants. From random weights they must not be: nothing
            would be normalised.

    Attributes:
        channels: of the map. stride: pixels of the image for one of the map.
    """

    def __init__(self, config: PreTrainedConfig, frozen_norm: bool = True):
        super().__init__()
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # what a model with attention hands down is an error for a ResNet
        self.model = AutoBackbone.from_config(config)
        self.channels = self.model.channels[-1]
        if frozen_norm:
            with torch.no_grad():
                replace_batch_norm(self.model)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w)."""
        return self.model(pixel_values).feature_maps[-1]

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """What is not trained where the weights were loaded."""
        for name, parameter in self.model.named_parameters():
            if name.startswith(FROZEN_STAGES):
                yield parameter


class PatchBackbone(nn.Module):
    """Patches, then convolutions with group norm: for small drawn images, from random weights.

    Args:
        patch: pixels of a side. channels: of the map. strides: of the convolutions of 3 x 3 that follow.
    """

    def __init__(self, patch: int = 4, channels: int = 48, strides: Sequence[int] = (2, 2, 1)):
        super().__init__()
        self.channels = channels
        layers = [nn.Conv2d(3, channels, patch, patch), *self._after(channels)]
        for stride in strides:
            layers += [nn.Conv2d(channels, channels, 3, stride, 1), *self._after(channels)]
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def _after(channels: int) -> list[nn.Module]:
        return [nn.GroupNorm(8 if channels % 8 == 0 else 1, channels), nn.ReLU()]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w)."""
        return self.layers(pixel_values)

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """None: nothing was loaded."""
        return iter(())


def reduced_mask(pixel_mask: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H, W), 1 for what is no padding, as bool at the size of a map, (B, h, w)."""
    return nn.functional.interpolate(pixel_mask[None].float(), size=tuple(size)).to(torch.bool)[0]
