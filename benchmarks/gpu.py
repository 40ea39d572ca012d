"""What needs a GPU: does the reward's precision part matter for a larger model, and how fast is a published size?

    python benchmarks/gpu.py --work-dir build/gpu
    python benchmarks/gpu.py --parts speed --engines transformers
    python benchmarks/gpu.py --size tiny --work-dir build/gpu-tiny

Learning: a model of 65 M parameters with random weights learns large_world.py (224 x 224 pixels, 4 to 8 objects, 20
predicates) by SFT, then by GRPO with the full reward and with the recall-only reward; checkpoints are evaluated, so
that the figures are a curve over steps. Speed: one GRPO step of Qwen3.5-0.8B's shape with random weights at the
published batch (24 completions, 12 for each image, 48 generated at once, 1,024 tokens), by vLLM in the trainer's
process and by transformers' generate. Without a GPU only --size tiny runs: the tiny model, a few steps, to see that it
works. What is finished is skipped when it is started again. Prints Markdown and writes it to WORK_DIR/gpu.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from grpo_step import table
from steps import ROOT, Settings, measure
from toyworld import FIGURES, step

SHOWN = ("relation_precision", "relation_recall", "relation_f1", "object_f1", "sgg_score", "relations", "failure_rate")


@dataclass(frozen=True)
class Size:
    """Scenes to train on and to evaluate, steps and checkpoints of SFT and GRPO, images and answers per update."""

    train: int
    images: int
    sft: tuple[int, int]
    grpo: tuple[int, int]
    batch: int
    groups: int
    group: int
    speed: Settings
    config: str


SIZES = {
    "real": Size(
        100_000, 1000, (6000, 1500), (400, 100), 64, 32, 12,
        Settings("", steps=8, generation_batch=48, tokens=1024, image=(640, 480), words=700, rollouts=(8, 64)),
        "single_gpu",
    ),
    "tiny": Size(
        48, 4, (2, 1), (2, 1), 4, 2, 2,
        Settings("", steps=2, completions=4, group=2, tokens=8, image=(224, 224), rollouts=(4,), rounds=1),
        "cpu",
    ),
}  # fmt: skip


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("learning", "speed"), default=["learning", "speed"])
    parser.add_argument("--size", choices=SIZES, default="real")
    parser.add_argument("--engines", nargs="+", choices=("vllm", "transformers"), default=["vllm", "transformers"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build/gpu")
    return parser.parse_args(arguments)


################
# Learning
################


def build_model(folder: Path, seed: int, size: str) -> None:
    """Qwen3-VL's architecture with random weights and a tokenizer of large_world.py's labels; tiny, or 65 M."""
    import torch
    from large_world import CLASSES, SIZE
    from large_world import PREDICATES as RELATIONS
    from transformers import AutoModelForImageTextToText, GenerationConfig

    from sgrl.prompts import SHORT
    from sgrl.tiny.families import FAMILIES
    from sgrl.tiny.tokenizer import build_tokenizer

    family = FAMILIES["qwen3_vl"]
    tokenizer = build_tokenizer(CLASSES, RELATIONS, SIZE, [SHORT], family.chat)
    config = family.config(tokenizer, SIZE)
    if size == "real":
        text, vision = config.text_config, config.vision_config
        text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 1536, 12
        text.num_attention_heads, text.num_key_value_heads, text.head_dim = 8, 4, 64
        text.rope_parameters["mrope_section"] = [12, 10, 10]
        text.initializer_range = vision.initializer_range = 0.03
        vision.hidden_size, vision.intermediate_size, vision.depth, vision.num_heads = 384, 1536, 12, 6
        vision.out_hidden_size = 512
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    part = folder.with_name(folder.name + ".part")
    model.save_pretrained(part)
    family.processor(tokenizer, SIZE).save_pretrained(part)
    part.rename(folder)
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters", file=sys.stderr)


def learning(args: argparse.Namespace, size: Size) -> str:
    """Train and evaluate; a table with a row per checkpoint."""
    folder, world, data = args.work_dir, args.work_dir / "world", args.work_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if not world.exists():
        from large_world import write

        write(world, size.train, size.images * 11 // 10 + 2)  # a few scenes may be left out
    python = sys.executable
    convert = ["data_prep/to_toon.py", "--layout", "hub", "--root", world, "--output", data]
    step(folder, "convert", [python, *convert, "--resize", "keep", "--prompt", "short"])
    models = folder / f"seed{args.seed}"
    models.mkdir(exist_ok=True)
    if not (models / "random").exists():
        build_model(models / "random", args.seed, args.size)
    launch = [python, "-m", "accelerate.commands.launch", "--config_file", f"recipes/accelerate/{size.config}.yaml"]
    gpu = ["--use_cpu", "false", "--bf16", "true"] if size.config == "single_gpu" else ["--use_cpu", "true"]
    common = ["--dataset", data, "--seed", args.seed, *gpu, "--save_total_limit", 100, "--save_only_model", "true"]

    (steps, every), sft = size.sft, models / "sft"
    command = ["recipes/sft_psg.py", "--config", "recipes/configs/toy/sft.yaml", *common, "--output_dir", sft]
    command += ["--model_name_or_path", models / "random", "--max_steps", steps, "--save_steps", every]
    command += ["--global_batch_size", size.batch, "--warmup_steps", steps // 20, "--learning_rate", 1e-3]
    step(models, "train-sft", [*launch, *command, "--attn_implementation", "sdpa"])
    checkpoints = [("random weights", models / "random")]
    checkpoints += [(f"SFT, step {at:,}", sft / f"checkpoint-{at}") for at in range(every, steps + 1, every)]

    steps, every = size.grpo
    for reward in ("full", "recall-only"):
        output = models / reward
        command = ["recipes/grpo_psg.py", "--config", "recipes/configs/toy/grpo.yaml", *common, "--reward", reward]
        command += ["--model_name_or_path", sft, "--output_dir", output, "--max_steps", steps, "--save_steps", every]
        command += ["--per_device_train_batch_size", size.groups * size.group, "--gradient_accumulation_steps", 1]
        command += ["--num_generations", size.group, "--max_completion_length", 200, "--vllm_max_model_length", 512]
        command += ["--trainable", "decoder", "--learning_rate", 1e-5, "--warmup_steps", steps // 20]
        command += ["--temperature", 1.0, "--use_vllm", "vllm" in args.engines]
        step(models, f"train-{reward}", [*launch, *command])
        saved = [(at, output / f"checkpoint-{at}") for at in range(every, steps + 1, every)]
        checkpoints += [(f"+ GRPO, {reward}, step {at:,}", path) for at, path in saved]

    titles = dict(FIGURES)
    lines = [f"| | {' | '.join(titles[name] for name in SHOWN)} |", "| --- |" + " --: |" * len(SHOWN)]
    engine = "vllm" if "vllm" in args.engines else "transformers"
    for name, path in checkpoints:
        output = models / "eval" / path.relative_to(models)
        command = ["recipes/evaluate.py", "--model", path, "--dataset", data, "--split", "test", "--engine", engine]
        command += ["--limit", size.images, "--max-new-tokens", 200, "--output", output]
        step(output.parent, f"eval-{path.name}", [python, *command])
        found = json.loads((output / "metrics.json").read_text())
        rows = [json.loads(line)["score"] for line in open(output / "predictions.jsonl", encoding="utf-8")]
        found["relations"] = sum(row["relations_predicted"] for row in rows) / len(rows)
        lines.append(f"| {name} | {' | '.join(f'{found[figure]:.3f}' for figure in SHOWN)} |")
    return "\n".join(lines)


################
# Speed
################


def speed(args: argparse.Namespace, size: Size) -> str:
    """The parts of a GRPO step with each engine."""
    model = args.work_dir / "speed-model"
    if not model.exists():
        args.work_dir.mkdir(parents=True, exist_ok=True)
        if args.size == "tiny":
            build_model(model, 0, "tiny")
        else:
            from engines import build_shape

            build_shape(model, "qwen3_5_0_8b")
    found = {}
    for engine in args.engines:
        file = args.work_dir / f"speed-{engine}.json"
        if not file.exists():
            settings = Settings(**{**vars(size.speed), "model": str(model), "vllm": engine == "vllm"})
            file.write_text(json.dumps(measure(settings)))
        found[engine] = json.loads(file.read_text())
    lines = [table(found), ""]
    for name, one in found.items():
        alone = ", ".join(f"{rate:,.0f} at {count} sequences" for count, rate in one["rollouts"].items())
        lines.append(f"- {name}: {one['tokens_per_second']:,.0f} tokens/s of the rollouts of a step; alone {alone}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    import torch

    args = parse_arguments(arguments)
    args.work_dir = args.work_dir.resolve()
    if args.size == "real" and not torch.cuda.is_available():
        sys.exit("no GPU was found; --size tiny shows on a CPU that everything runs")
    size = SIZES[args.size]
    sections = []
    for part in args.parts:
        sections += [f"### {part.capitalize()}", "", {"learning": learning, "speed": speed}[part](args, size), ""]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    words = shlex.join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if arguments is None else arguments)])
    sections.append(
        f"{datetime.date.today()}, {device}, {os.cpu_count()} cores, torch {torch.__version__}. Command: `{words}`"
    )
    text = "\n".join([*sections, ""])
    (args.work_dir / "gpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
