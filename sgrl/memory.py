"""How much memory do training and inference take, and how many sequences fit into what is there?

GiB on each of G GPUs. N parameters, of which T train (the language model; for LoRA 1 % of it); b = batch / G sequences
of `length` tokens at a time on each; a language model of L layers and width d.

    DDP       weights 4 N, their copies in bfloat16 2 N while computing, gradients 4 T, Adam 8 T
    ZeRO-2    weights 2 N (bfloat16); divided by G: gradients 2 T, weights in float32 4 T, Adam 8 T
    ZeRO-3    weights 2 N / G and the largest layer; the rest as ZeRO-2. FSDP2: 2 N / G more
    LoRA      weights 2 N (`dtype: bfloat16`; ZeRO-3: / G); gradients, Adam and float32 weights of T, 16 T
    reference weights once more where beta is not 0; not with LoRA, which switches its adapters off
    vLLM      weights 2 N and a cache of 4 (keys and values in bfloat16) x kv width x layers with a cache x length, for
              every sequence that is generated at once; set aside all along unless vllm_enable_sleep_mode is true
    activations, roughly, with gradient_checkpointing: b x length x d x (2 L + 40) bytes

Rough: fragmentation, the CUDA context (about 1 GiB), communication buffers (2 GiB or more with ZeRO) and the vision
tower's activations come on top. Expect one and a half times the figures where they are small.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgrl.errors import SgrlError

GIB = 2**30
PROFILE = 1.5 * GIB  # what vLLM leaves free beside weights and cache, for its own activations
BESIDES = 1.5 * GIB  # the interpreter, the CUDA context, fragments, the vision tower's activations
LENGTH = 4144  # tokens of prompt and answer, in PSG's published settings
LARGEST_HEADER = 100_000_000
MOST = 64  # sequences at a time, which no setting of ours exceeds


@dataclass(frozen=True)
class Shape:
    """Parameters in all and of the language model; its width, layers, layers with a cache, and width of the keys."""

    parameters: float
    language: float
    width: int
    layers: int
    cached: int
    keys: int


# Counted in transformers' own classes with the published configurations.
SHAPES = {
    "Qwen3.5-0.8B": Shape(0.853e9, 0.752e9, 1024, 24, 6, 512),
    "Qwen3-VL-2B": Shape(2.128e9, 1.721e9, 2048, 28, 28, 1024),
    "Qwen2.5-VL-3B": Shape(3.755e9, 3.086e9, 2048, 36, 36, 256),
    "Qwen2.5-VL-7B": Shape(8.292e9, 7.616e9, 3584, 28, 28, 512),
    "InternVL3.5-1B": Shape(1.061e9, 0.752e9, 1024, 28, 28, 1024),
    "SmolVLM-500M": Shape(0.507e9, 0.409e9, 960, 32, 32, 320),
}


def training(shape: Shape, way: str, lora: bool, gpus: int, reference: bool, whole: bool = False) -> float:
    """Bytes of weights, gradients and Adam's states on each GPU. whole: the vision tower trains too.

    >>> round(training(SHAPES["Qwen2.5-VL-7B"], "DDP", False, 8, False) / GIB)
    131
    """
    n, t = shape.parameters, shape.parameters if whole else shape.language
    layer = 2 * shape.language / shape.layers
    if lora:
        return 16 * 0.01 * t + (2 * n / gpus + layer if way == "ZeRO-3" else 2 * n)
    weights = {"DDP": 6 * n, "ZeRO-2": 2 * n, "ZeRO-3": 2 * n / gpus + layer}[way]
    states = 12 * t if way == "DDP" else 14 * t / gpus
    kept = {"DDP": 4 * n, "ZeRO-2": 2 * n, "ZeRO-3": 2 * n / gpus}[way] if reference else 0
    return weights + states + kept


def engine(shape: Shape, sequences: int, length: int) -> float:
    """Bytes of vLLM's weights and cache."""
    return 2 * shape.parameters + 4 * shape.keys * shape.cached * length * sequences


def activations(shape: Shape, sequences: float, length: int) -> float:
    """Bytes, roughly."""
    return sequences * length * shape.width * (2 * shape.layers + 40)


def fitting(memory: float, taken: float, each: float) -> int:
    """How many sequences of `each` bytes fit beside `taken` ones, a power of two; 0 if none does.

    >>> fitting(8 * GIB, 2 * GIB, GIB)
    4
    """
    left = int((memory - taken - BESIDES) / each)
    return min(MOST, 1 << (left.bit_length() - 1)) if left > 0 else 0


def memory_of_machine() -> int:
    """Bytes of main memory that this process may use: the machine's, or what its container has."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        import psutil

        found = psutil.virtual_memory().total
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(name).read_text()))
        except (OSError, ValueError):
            pass
    return found


def shape_of(folder: str | Path) -> Shape:
    """The shape of a model folder, from its configuration and the heads of its weights; nothing is loaded.

    Raises:
        SgrlError: the weights are no safetensors, or the configuration says no width or number of layers.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = config.get("text_config") or config.get("llm_config") or config
        width, layers, heads = (text[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        kinds = text.get("layer_types") or ["full_attention"] * layers
        keys = (text.get("num_key_value_heads") or heads) * (text.get("head_dim") or width // heads)
        sizes = list(_sizes(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise SgrlError(f"{folder} does not say how large its model is ({type(error).__name__}: {error})") from None
    seen = sum(size for name, size in sizes if any(part in name for part in ("visual", "vision", "vit")))
    total = sum(size for _, size in sizes)
    if not total:
        raise SgrlError(f"{folder} has no weights in safetensors")
    cached = sum(kind != "linear_attention" for kind in kinds)
    return Shape(total, total - seen, width, layers, cached, keys)


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and number of parameters of each tensor."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LARGEST_HEADER:
                raise ValueError(f"{path.name} is no safetensors")
            header: dict[str, Any] = json.loads(file.read(length))
        for name, about in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in about["shape"]:
                    size *= dimension
                yield name, size
