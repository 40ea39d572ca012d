"""How much memory does training take on each GPU? Prints the table of docs/scaling.md, or what one YAML file needs.

    python tools/memory.py
    python tools/memory.py --gpus 4 --length 4144 --batch 24
    python tools/memory.py --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml
    python tools/memory.py --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml --gpus 4 --card 140

For a YAML file the launcher and the number of GPUs are those of the first command at its top. The line that is printed
stands in the file as a comment, where the recipes' list of configurations finds it.

The formulas are those of sgrl/memory.py.
"""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgrl.memory import GIB, PROFILE, SHAPES, activations, engine, training

ROOT = Path(__file__).resolve().parent.parent
CARD = 80  # GiB


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
