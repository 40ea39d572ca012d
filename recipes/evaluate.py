"""Evaluate a model on a data set: write a graph for every image, and compare each with its reference.

    python recipes/evaluate.py --model build/demo/grpo --dataset build/demo/data --output build/demo/eval/grpo

Graphs come from vLLM, or from transformers where there is no vLLM, or from a server (--engine openai), decoded
greedily, as recipes/predict.py writes them: appended to OUTPUT/predictions.jsonl as they come. Then each gets its
scores, and the means go to OUTPUT/metrics.json. Interrupted, the same command goes on where it was.
`python -m sgrl report` turns such folders into a page with pictures.
"""

import argparse
import datetime
import functools
import json
from collections.abc import Iterator

from rewards.metrics import SceneGraphMetrics
from sgrl.files import atomic_path
from sgrl.inference.predict import add_arguments, check_arguments, open_rows, predict
from sgrl.inference.predictions import PredictionFolder, prediction_key
from sgrl.training.launch import command


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args()
    check_arguments(args)
    return args


def scored(folder: PredictionFolder, metrics: SceneGraphMetrics) -> Iterator[dict]:
    """The rows with their scores, and with what of them matched the reference."""
    for row in folder:
        sample = (row["prediction"], row["solution"], row["width"], row["height"])
        compared = metrics.compare(*sample)
        score = {name: round(value, 6) for name, value in compared.values.items()}
        yield row | {"score": score, "matched": compared.matched}


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
    rows = open_rows(args)
    folder = predict(args, rows)
    first = rows[0]
    new_metrics = functools.partial(SceneGraphMetrics, rows.codec, first["width"], first["height"])
    folder.rewrite(scored(folder, new_metrics()))
    found = summarize(folder, set(rows.keys), new_metrics())
    with atomic_path(args.output / "metrics.json") as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found, args.max_new_tokens))


if __name__ == "__main__":
    main()
