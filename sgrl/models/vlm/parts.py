"""Where things are in a vision-language model: aligner, placeholder tokens, linear attention."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.models.vlm.families import ALIGNER_NAMES

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin


def aligners(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that carry visual features into the language model."""
    decoder = set(model.get_decoder().modules())
    found = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ALIGNER_NAMES and module not in decoder
    ]
    if not found:
        raise SgrlError(
            f"{type(model).__name__} has no module called {', '.join(ALIGNER_NAMES)}: its aligner is unknown. "
            "Use trainable: decoder or all"
        )
    return found


def placeholder_ids(config: PretrainedConfig, processor: ProcessorMixin) -> list[int]:
    """The tokens that stand for images and videos in a prompt, and that no answer may hold."""
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
    found = {getattr(owner, name, None) for owner in (config, processor) for name in names}
    return sorted(token for token in found if isinstance(token, int))


def uses_linear_attention(config: PretrainedConfig) -> bool:
    """Whether a model has linear-attention layers (Qwen3.5, for one), for which vLLM on CPUs has bfloat16 alone."""
    return "linear_attention" in (getattr(config.get_text_config(), "layer_types", None) or ())


LINEAR_ATTENTION_KERNELS = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
"""Modules that transformers takes for linear attention where they are, and the packages that hold them."""


def missing_kernels(config: PretrainedConfig) -> str | None:
    """What slows a model's linear attention down on this machine and how to mend it; None if nothing does.

    transformers falls back to PyTorch code, which is right and more than ten times slower on a GPU.
    """
    missing = [name for module, name in LINEAR_ATTENTION_KERNELS.items() if importlib.util.find_spec(module) is None]
    if not missing or not uses_linear_attention(config):
        return None
    return (
        f"this model has linear attention, which runs as slow PyTorch code without {' and '.join(missing)}; "
        f"pip install --no-build-isolation {' '.join(missing)}"
    )
