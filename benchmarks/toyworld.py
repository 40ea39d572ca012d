"""What does reinforcement learning add to supervised fine-tuning, and what are the precision terms for?

    python benchmarks/toyworld.py --work-dir build/benchmark

`make demo` over several seeds, with a second GRPO whose reward is recall alone. For each seed: random weights, SFT,
then GRPO with the full reward and GRPO with the recall-only reward, both from the same SFT model; every model is
evaluated on the same held-out scenes. The recipes and the YAML files are the demo's; only the seed changes. Finished
steps are skipped when it is started again; what each step printed is in WORK_DIR/**/*.log. To use two cores, start it
twice with one half of the seeds each (once the scenes are drawn and converted), and then once more with all of them.

Prints Markdown and writes it to WORK_DIR/toyworld.md: means over seeds with their spread, and differences with
intervals from a paired bootstrap over images. These cover which images were drawn; the spread over seeds stands beside
them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rewards.metrics.bootstrap import interval, ratio, resampled_sums
from sgrl.process import PARENT

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("base", "sft", "full", "recall")
NAMES = {"base": "random weights", "sft": "SFT", "full": "+ GRPO, full reward", "recall": "+ GRPO, recall only"}
FIGURES = (
    ("object_precision", "object P"),
    ("object_recall", "object R"),
    ("object_f1", "object F1"),
    ("relation_precision", "relation P"),
    ("relation_recall", "relation R"),
    ("relation_f1", "relation F1"),
    ("sgg_score", "SGG score"),
    ("pooled_relation_precision", "relation P, pooled"),
    ("pooled_relation_recall", "relation R, pooled"),
    ("pooled_relation_f1", "relation F1, pooled"),
    ("failure_rate", "failure rate"),
    ("relations", "relations per image"),
    ("mean_tokens", "tokens"),
)
MEANS = ("relation_precision", "relation_recall", "relation_f1", "object_f1", "sgg_score")
POOLED = {  # what is summed over images before it is divided
    "pooled_relation_precision": ("relations_right", "relations_predicted"),
    "pooled_relation_recall": ("relations_right", "relations_reference"),
}
PAIRS = (("full", "sft"), ("recall", "sft"), ("full", "recall"))
RESAMPLES = 10_000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build/benchmark")
    parser.add_argument("--train", type=int, default=32000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="held-out scenes (default: %(default)s)")
    parser.add_argument("--sft-options", default="", help="further options of recipes/sft_psg.py, in one string")
    parser.add_argument("--grpo-options", default="", help="further options of recipes/grpo_psg.py, in one string")
    return parser.parse_args()


def step(folder: Path, name: str, command: list[object]) -> None:
    """Run a command once: `folder`/`name`.json says that it was done, with which command and in how many seconds."""
    words = [str(word) for word in command]
    done = folder / f"{name}.json"
    if done.exists():
        found = json.loads(done.read_text())
        if found["command"] != words:
            sys.exit(
                f"{done} was made by another command:\n  {shlex.join(found['command'])}\nnow:\n  {shlex.join(words)}\n"
                "Choose another --work-dir, or remove this one."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{folder.name} {name}: {shlex.join(words)}", file=sys.stderr, flush=True)
    start = time.monotonic()
    log = folder / f"{name}.log"
    with socket.socket() as free:  # two benchmarks at once must not meet on one port
        free.bind(("127.0.0.1", 0))
        environment = {"MASTER_PORT": str(free.getsockname()[1]), PARENT: str(os.getpid()), **os.environ}
    with open(log, "ab") as output:
        status = subprocess.run(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        sys.exit(f"{shlex.join(words)}\nended with status {status}; the end of {log}:\n{tail}")
    done.write_text(json.dumps({"command": words, "seconds": time.monotonic() - start}, indent=2) + "\n")


def run_seed(args: argparse.Namespace, seed: int, data: Path) -> None:
    """Everything for one seed."""
    folder = args.work_dir / f"seed{seed}"
    python = sys.executable
    accelerator = subprocess.run([ROOT / "tools/accelerator.sh"], capture_output=True, text=True).stdout.strip()
    config = "single_gpu" if accelerator == "gpu" else "cpu"
    launch = [python, "-m", "accelerate.commands.launch", "--config_file", f"recipes/accelerate/{config}.yaml"]
    step(folder, "base", [python, "-m", "sgrl.tiny", "--output", folder / "models/base", "--seed", seed])
    common = ["--dataset", data, "--seed", seed]
    sft = ["recipes/sft_psg.py", "--config", "recipes/configs/toy/sft.yaml", *common]
    sft += ["--model_name_or_path", folder / "models/base", "--output_dir", folder / "models/sft"]
    step(folder, "sft", [*launch, *sft, *shlex.split(args.sft_options)])
    for model, reward in (("full", "full"), ("recall", "recall-only")):
        grpo = ["recipes/grpo_psg.py", "--config", "recipes/configs/toy/grpo.yaml", *common, "--reward", reward]
        grpo += ["--model_name_or_path", folder / "models/sft", "--output_dir", folder / "models" / model]
        step(folder, model, [*launch, *grpo, *shlex.split(args.grpo_options)])
    for model in MODELS:
        evaluate = ["recipes/evaluate.py", "--model", folder / "models" / model, "--dataset", data, "--split", "test"]
        evaluate += ["--limit", args.images, "--max-new-tokens", 80, "--output", folder / "eval" / model]
        step(folder, f"eval-{model}", [python, *evaluate])


def read_evaluation(folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Means of one evaluation; and, for each figure to compare, numerators and denominators (2, images) of each image
    in the order of their ids: the figure is the quotient of their sums."""
    means = json.loads((folder / "metrics.json").read_text())
    with open(folder / "predictions.jsonl", encoding="utf-8") as lines:
        rows = sorted((json.loads(line) for line in lines), key=lambda row: row["image_id"])
    names = {*MEANS, *itertools.chain(*POOLED.values())}
    column = {name: np.array([row["score"][name] for row in rows]) for name in names}
    values = {name: np.stack([column[name], np.ones(len(rows))]) for name in MEANS}
    values |= {name: np.stack([column[part] for part in parts]) for name, parts in POOLED.items()}
    return {**means, "relations": float(column["relations_predicted"].mean())}, values


def bootstrap(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """A 95 % percentile interval of the difference of two figures, averaged over seeds; images are drawn, seeds stay.

    Args:
        ours, theirs: (seeds, 2, images), numerators and denominators, of the same images.

    >>> bootstrap(np.full((3, 2, 50), 1.0), np.stack([np.zeros((3, 50)), np.ones((3, 50))], axis=1))
    (1.0, 1.0)
    """
    shape = ours.shape[:-1]
    columns = np.concatenate([ours, theirs]).reshape(-1, ours.shape[-1]).T
    drawn = resampled_sums(columns, RESAMPLES).reshape(RESAMPLES, 2, *shape)
    return interval(np.mean(quotient(drawn[:, 0]) - quotient(drawn[:, 1]), axis=-1))


def quotient(sums: np.ndarray) -> np.ndarray:
    """Numerator over denominator, (..., 2) -> (...); 0 where nothing was counted."""
    return ratio(sums[..., 0], sums[..., 1])


def spread(values: list[float]) -> str:
    """Mean and, of several values, standard deviation, least and greatest."""
    mean = statistics.fmean(values)
    digits = 1 if mean > 10 else 3
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    lowest, highest = min(values), max(values)
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f} ({lowest:.{digits}f} to {highest:.{digits}f})"


def report(args: argparse.Namespace) -> str:
    """The tables as Markdown."""
    means: dict[str, list[dict[str, float]]] = {model: [] for model in MODELS}
    values: dict[str, list[dict[str, np.ndarray]]] = {model: [] for model in MODELS}
    for seed in args.seeds:
        for model in MODELS:
            found, images = read_evaluation(args.work_dir / f"seed{seed}" / "eval" / model)
            means[model].append(found)
            values[model].append(images)
    minutes = {
        name: statistics.fmean(
            json.loads((args.work_dir / f"seed{seed}" / f"{name}.json").read_text())["seconds"] / 60
            for seed in args.seeds
        )
        for name in ("sft", "full", "recall")
    }
    samples = means["sft"][0]["samples"]
    seeds = f"{len(args.seeds)} seed{'s' * (len(args.seeds) > 1)}"
    lines = [
        f"{seeds} ({', '.join(map(str, args.seeds))}), {samples:,} held-out scenes each. Mean ± standard deviation "
        "over seeds (least to greatest).",
        "",
        "| | " + " | ".join(NAMES[model] for model in MODELS) + " |",
        "| --- |" + " --- |" * len(MODELS),
    ]
    for key, name in FIGURES:
        cells = [spread([found[key] for found in means[model]]) for model in MODELS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Differences, paired by image, averaged over seeds; in brackets the 95 % interval of a bootstrap over images "
        f"({RESAMPLES:,} resamples), then each seed's own difference.",
        "",
        "| | " + " | ".join(f"{a} − {b}" for a, b in PAIRS) + " |",
        "| --- |" + " --- |" * len(PAIRS),
    ]
    for key in (*MEANS, *POOLED):
        cells = []
        for a, b in PAIRS:
            ours, theirs = (np.stack([images[key] for images in values[model]]) for model in (a, b))
            differences = quotient(ours.sum(axis=-1)) - quotient(theirs.sum(axis=-1))
            low, high = bootstrap(ours, theirs)
            each = ", ".join(f"{value:+.3f}" for value in differences)
            cells.append(f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]; {each}")
        lines.append(f"| {dict(FIGURES)[key]} | {' | '.join(cells)} |")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "trl"))
    lines += [
        "",
        f"Minutes a seed: SFT {minutes['sft']:.1f}, GRPO {minutes['full']:.1f} (full) and {minutes['recall']:.1f} "
        f"(recall). {datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, python "
        f"{platform.python_version()}, {packages}. Command: `{shlex.join(['python', *sys.argv])}`",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    args = parse_arguments()
    args.work_dir = args.work_dir.resolve()
    world, data = args.work_dir / "world", args.work_dir / "data"
    python = sys.executable
    # Scenes without relations are left out, as in PSG: about one in twenty.
    test = args.images + max(args.images // 10, 4)
    draw = ["data_prep/toyworld.py", "--output", world, "--train", args.train, "--test", test]
    step(args.work_dir, "draw", [python, *draw])
    convert = ["data_prep/to_toon.py", "--layout", "psg", "--root", world, "--output", data]
    step(args.work_dir, "convert", [python, *convert, "--resize", "keep", "--prompt", "short"])
    for seed in args.seeds:
        run_seed(args, seed, data)
    text = report(args)
    (args.work_dir / "toyworld.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
