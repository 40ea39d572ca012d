"""How much memory does training take on each GPU? Prints the table of docs/scaling.md.

    python tools/memory.py
    python tools/memory.py --gpus 4 --length 4144 --batch 24

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

import argparse
from dataclasses import dataclass

GIB = 2**30


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
}
WAYS = ("DDP", "ZeRO-2", "ZeRO-3")


def training(shape: Shape, way: str, lora: bool, gpus: int, reference: bool) -> float:
    """Bytes of weights, gradients and Adam's states on each GPU.

    >>> round(training(SHAPES["Qwen2.5-VL-7B"], "DDP", False, 8, False) / GIB)
    131
    """
    n, t = shape.parameters, shape.language
    layer = 2 * t / shape.layers
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


def table(gpus: int, length: int, batch: int) -> str:
    """Markdown: a row for each model, GiB on each GPU."""
    names = [f"{kind}, {way}" for kind in ("full", "LoRA") for way in WAYS]
    lines = [f"| | {' | '.join(names)} | vLLM | activations |", "| --- |" + " --: |" * (len(names) + 2)]
    for name, shape in SHAPES.items():
        bytes_ = [training(shape, way, lora, gpus, not lora) for lora in (False, True) for way in WAYS]
        bytes_ += [engine(shape, batch // gpus, length), activations(shape, batch / gpus, length)]
        lines.append(f"| {name} | {' | '.join(f'{each / GIB:.0f}' for each in bytes_)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=4144, help="tokens of prompt and answer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=96, help="sequences on all GPUs together (default: %(default)s)")
    args = parser.parse_args()
    print(table(args.gpus, args.length, args.batch))


if __name__ == "__main__":
    main()
