"""How much memory does training take on each GPU? Prints the table of docs/scaling.md, or what one YAML file needs.

    python tools/memory.py
    python tools/memory.py --gpus 4 --length 4144 --batch 24
    python tools/memory.py --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml
    python tools/memory.py --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml --gpus 4 --card 140

For a YAML file the launcher and the number of GPUs are those of the first command at its top. The line that is printed
stands in the file as a comment, where the recipes' list of configurations finds it.

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
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

GIB = 2**30
ROOT = Path(__file__).resolve().parent.parent
CARD = 80  # GiB
PROFILE = 1.5 * GIB  # what vLLM leaves free beside weights and cache, for its own activations


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
FOLDERS = {  # of recipes/configs
    "qwen3_5_0_8b": "Qwen3.5-0.8B",
    "qwen3_vl_2b": "Qwen3-VL-2B",
    "qwen2_5_vl_3b": "Qwen2.5-VL-3B",
    "qwen2_5_vl_7b": "Qwen2.5-VL-7B",
    "internvl3_5_1b": "InternVL3.5-1B",
    "smolvlm_500m": "SmolVLM-500M",
}
WAYS = ("DDP", "ZeRO-2", "ZeRO-3")
LAUNCHERS = {"single_gpu": "DDP", "ddp": "DDP", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp2": "ZeRO-3"}


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


def table(gpus: int, length: int, batch: int) -> str:
    """Markdown: a row for each model, GiB on each GPU."""
    names = [f"{kind}, {way}" for kind in ("full", "LoRA") for way in WAYS]
    lines = [f"| | {' | '.join(names)} | vLLM | activations |", "| --- |" + " --: |" * (len(names) + 2)]
    for name, shape in SHAPES.items():
        bytes_ = [training(shape, way, lora, gpus, not lora) for lora in (False, True) for way in WAYS]
        bytes_ += [engine(shape, batch // gpus, length), activations(shape, batch / gpus, length)]
        lines.append(f"| {name} | {' | '.join(f'{each / GIB:.0f}' for each in bytes_)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Need:
    """GiB on each GPU. full: the cache that a batch of rollouts fills at its longest; a group shares its prompt."""

    training: float
    activations: float
    engine: float = 0.0
    cache: float = 0.0
    full: float = 0.0

    @property
    def total(self) -> float:
        return self.training + self.activations + self.engine


def launched(config: Path) -> tuple[str, int]:
    """The launcher's name and the number of processes of the first command at the top of a recipe's YAML file."""
    text = re.sub(r"\\\n# *", "", config.read_text(encoding="utf-8"))
    words = shlex.split(re.search(r"accelerate launch .*", text).group())
    launcher = Path(words[words.index("--config_file") + 1])
    if "--num_processes" in words:
        return launcher.stem, int(words[words.index("--num_processes") + 1])
    return launcher.stem, yaml.safe_load((ROOT / launcher).read_text())["num_processes"]


def need(config: Path, launcher: str, gpus: int, card: float = CARD) -> Need:
    """What a recipe's YAML file needs on each of `gpus` cards of `card` GiB, everything at its limit of length."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    shape = SHAPES[FOLDERS[config.parent.name]]
    lora, whole = (settings["trainable"] == name for name in ("lora", "all"))
    states = training(shape, LAUNCHERS[launcher], lora, gpus, not lora and bool(settings.get("beta")), whole)
    batch = settings["per_device_train_batch_size"]
    if not settings.get("use_vllm"):
        return Need(states / GIB, activations(shape, batch, settings["max_tokens"]) / GIB)
    length = settings["vllm_max_model_length"]
    share = settings["vllm_gpu_memory_utilization"] * card
    rounds = settings.get("steps_per_generation") or max(1, settings["global_batch_size"] // (batch * gpus))
    answers = batch * rounds
    tokens = answers * (settings["max_tokens"] / settings["num_generations"] + settings["max_completion_length"])
    return Need(
        states / GIB,
        activations(shape, batch, length) / GIB,
        share,
        share - (2 * shape.parameters + PROFILE) / GIB,
        (engine(shape, 1, tokens) - engine(shape, 0, tokens)) / GIB,
    )


def sentence(need: Need, gpus: int, card: float) -> str:
    """The comment of a YAML file."""
    text = f"Memory: {gpus} GPU{'s' * (gpus > 1)} of {card:.0f} GiB. On each {need.total:.0f} GiB: "
    text += f"training {need.training:.0f}, activations {need.activations:.0f} at most"
    if need.engine:
        text += f", vLLM {need.engine:.0f} (cache {need.cache:.0f}, full {need.full:.0f})"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a YAML file of recipes/configs")
    parser.add_argument("--card", type=float, default=CARD, help="GiB of a GPU, for --config (default: %(default)s)")
    parser.add_argument("--gpus", type=int, help="default: 8; with --config as in its first command")
    parser.add_argument("--length", type=int, default=4144, help="tokens of prompt and answer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=96, help="sequences on all GPUs together (default: %(default)s)")
    args = parser.parse_args()
    if args.config is None:
        print(table(args.gpus or 8, args.length, args.batch))
        return
    launcher, gpus = launched(args.config)
    gpus = args.gpus or gpus
    print(sentence(need(args.config, launcher, gpus, args.card), gpus, args.card))


if __name__ == "__main__":
    main()
