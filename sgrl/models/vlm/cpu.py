"""What makes a model faster on a CPU and changes nothing else."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def faster_on_cpu(model: nn.Module) -> None:
    """Let the vision towers of the Qwen families on a CPU take fewer and larger steps; equal up to rounding.

    Their patch embeddings get patches of exactly their kernel's size, for which PyTorch's 3-d convolution takes four
    times as long as the matrix product that it is, and two hundred times in bfloat16. Their attention takes image by
    image; images of one size go together. Parameters and their names stay.
    """
    from torch import nn

    for module in model.modules():
        if is_packed_attention(module):
            module.forward = functools.partial(_attention_of_equal_images, module)
        elif (
            isinstance(module, nn.Conv3d)
            and module.weight.device.type == "cpu"
            and module.kernel_size == module.stride
            and module.dilation == (1, 1, 1)
            and module.groups == 1
            and not any(module.padding)
        ):
            module.forward = functools.partial(_patches_to_vectors, module)


def _patches_to_vectors(convolution: nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """(n, channels, time, height, width) -> (n, features, 1, 1, 1)."""
    from torch.nn import functional

    if patches.shape[2:] != convolution.kernel_size:
        return type(convolution).forward(convolution, patches)
    vectors = functional.linear(patches.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return vectors[:, :, None, None, None]


def is_packed_attention(module: nn.Module) -> bool:
    """Whether this is the attention of a Qwen vision tower on a CPU, which gets the patches of all images in a row."""
    return (
        type(module).__name__.endswith("VisionAttention")
        and all(hasattr(module, name) for name in ("qkv", "proj", "num_heads", "scaling", "attention_dropout"))
        and _code_of(module) is not None
        and module.proj.weight.device.type == "cpu"
    )


def _code_of(attention: nn.Module) -> ModuleType | None:
    """The file of its class in transformers, FSDP's class around it or not."""
    files = (sys.modules[kind.__module__] for kind in type(attention).__mro__)
    return next((file for file in files if hasattr(file, "apply_rotary_pos_emb_vision")), None)


def _attention_of_equal_images(
    attention: nn.Module, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor, position_embeddings=None, **kwargs
) -> torch.Tensor:
    """(patches of all images, features) -> the same, as transformers' `forward`.

    cu_seqlens: (images + 1,) where the patches of each begin, and their number.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    lengths = set((cu_seqlens[1:] - cu_seqlens[:-1]).tolist())
    implementation = attention.config._attn_implementation
    if len(lengths) > 1 or position_embeddings is None or implementation not in ("eager", "sdpa"):
        forward = type(attention).forward
        return forward(attention, hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs)
    code: Any = _code_of(attention)
    patches = hidden_states.shape[0]
    qkv = attention.qkv(hidden_states).reshape(patches, 3, attention.num_heads, -1).permute(1, 0, 2, 3)
    query, key, value = qkv.unbind(0)
    query, key = code.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    each = (-1, lengths.pop(), *query.shape[1:])
    kwargs.pop("max_seqlen", None)
    found, _ = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, code.eager_attention_forward)(
        attention,
        *(states.reshape(each).transpose(1, 2) for states in (query, key, value)),
        attention_mask=None,
        scaling=attention.scaling,
        dropout=attention.attention_dropout if attention.training else 0.0,
        is_causal=False,
        **kwargs,
    )
    return attention.proj(found.reshape(patches, -1))
