"""In which precision a device computes: the one place that decides it, for training, vLLM, evaluation and benchmarks.

GPUs compute in bfloat16. CPUs compute in float32: one without bfloat16 units takes several times as long in bfloat16,
and one with them gains little (benchmarks/sft_step.py). What is asked for explicitly is done, with a warning where it
is slow.
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)

HALVES = ("bfloat16", "float16")


def device(use_cpu: bool = False) -> str:
    """The kind of device that computes here: "cuda", "mps", ..., or "cpu".

    Args:
        use_cpu: the trainers' setting; accelerate's launcher says it by ACCELERATE_USE_CPU.
    """
    import torch

    if use_cpu or os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes"):
        return "cpu"
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def has_units(dtype: str) -> bool:
    """Whether this CPU computes in `dtype` ("float32", "bfloat16" or "float16") with instructions of its own."""
    import torch

    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}.get(dtype)
    if name is None:
        return True
    try:
        return bool(getattr(torch.ops.mkldnn, name)())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def choose(where: str, asked: str = "auto") -> str:
    """The name of the dtype to compute in.

    Args:
        where: kind of device, see `device`.
        asked: "float32", "bfloat16" or "float16" is done, with a warning where it is slow; "auto" decides.
    """
    if asked == "auto":
        return "bfloat16" if where == "cuda" else "float32"
    if where == "cpu" and not has_units(asked):
        logger.warning("%s is slow on this CPU, which has no units for it: float32 is several times as fast", asked)
    return asked


def for_vllm(on_cpu: bool, asked: str, linear_attention: bool) -> str:
    """`choose` for vLLM, which has linear attention on CPUs in bfloat16 alone.

    Args:
        on_cpu: whether vLLM runs on a CPU. linear_attention: whether the model has such layers (Qwen3.5, for one).
    """
    if not (on_cpu and linear_attention):
        return choose("cpu" if on_cpu else "cuda", asked)
    if asked != "bfloat16":
        logger.info("vLLM runs in bfloat16: on CPUs it has linear attention in nothing else")
    return choose("cpu", "bfloat16")


def describe_cpu() -> str:
    """For `doctor`: what this CPU computes in, and why."""
    found = [dtype for dtype in HALVES if has_units(dtype)]
    if found:
        return f"CPUs compute in float32 (this one has units for {' and '.join(found)}, which gain little)"
    return "CPUs compute in float32 (this one has no units for bfloat16, which takes several times as long)"
