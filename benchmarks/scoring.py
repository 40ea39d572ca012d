"""How long do rewards and metrics take? One thread, nothing cached, as in a GRPO step.

    python benchmarks/scoring.py

1,000 completions for 84 references, 12 for each but the last, about 94 % of them valid, at 10 objects with 8 relations
and at 40 objects with 60 relations. What is timed is CPU time of the process, best and median of several runs; what is
printed is a Markdown table. The published figures were measured on the same kind of workload and machine (2 cores,
"AMD EPYC"); they are constants here, because the published code needs its training framework to run.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy
import scipy
from graphs import HEIGHT, WIDTH, workload

from rewards import R1_SGG, SCENEGRAPHVLM, GraphScorer
from rewards.metrics import SceneGraphMetrics
from rewards.trl import BatchScorer, Term
from sgrl.text import get_codec

SIZES = ((10, 8), (40, 60))

# CPU seconds per 1,000 completions of the published code, best / median, by size
PUBLISHED = {
    "SceneGraphVLM, all 8 terms": ((0.62, 0.67), (5.30, 5.42)),
    "SceneGraphVLM, format only": ((0.05, 0.05), (0.21, 0.21)),
    "R1-SGG, all 6 terms": ((0.69, 0.83), (12.4, 12.9)),
}


def all_terms_through_trl(completions: list[str], solutions: list[str]) -> None:
    scorer = BatchScorer()
    sizes = {"width": [WIDTH] * len(completions), "height": [HEIGHT] * len(completions)}
    for term in SCENEGRAPHVLM.weights:
        Term(term, scorer)(completions, solutions, **sizes)


def metrics(completions: list[str], solutions: list[str]) -> None:
    counted = SceneGraphMetrics("toon", WIDTH, HEIGHT)
    for completion, solution in zip(completions, solutions, strict=True):
        counted.add(completion, solution)


def one_by_one(completions: list[str], solutions: list[str]) -> None:
    scorer = GraphScorer("toon", WIDTH, HEIGHT)
    for completion, solution in zip(completions, solutions, strict=True):
        scorer(completion, solution)


def parse_only(completions: list[str], solutions: list[str]) -> None:
    parse = get_codec("toon").parse
    for completion in completions:
        try:
            parse(completion, WIDTH, HEIGHT)
        except ValueError:
            pass


JOBS: dict[str, tuple[str, Callable, str | None]] = {
    "GraphScorer.many, all 8 terms": (
        "toon",
        lambda *batch: GraphScorer("toon", WIDTH, HEIGHT).many(*batch),
        "SceneGraphVLM, all 8 terms",
    ),
    "the 8 functions of rewards.trl": ("toon", all_terms_through_trl, "SceneGraphVLM, all 8 terms"),
    "GraphScorer, one call per completion": ("toon", one_by_one, "SceneGraphVLM, all 8 terms"),
    "codec.parse alone": ("toon", parse_only, "SceneGraphVLM, format only"),
    "GraphScorer.many, R1-SGG, all 6 terms": (
        "json",
        lambda *batch: GraphScorer("json", WIDTH, HEIGHT, preset=R1_SGG).many(*batch),
        "R1-SGG, all 6 terms",
    ),
    "SceneGraphMetrics.add": ("toon", metrics, None),
}


def cpu_seconds(job: Callable, batch: tuple, repeats: int) -> tuple[float, float]:
    """Best and median."""
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        job(*batch)
        times.append(time.process_time() - start)
    return min(times), statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each job (default: 5)")
    repeats = parser.parse_args().repeats
    batches = {(codec, size): workload(codec, *size) for codec in ("toon", "json") for size in SIZES}
    print("### Rewards and metrics\n")
    print("CPU seconds per 1,000 completions (best / median), one thread, nothing cached.\n")
    print("| | " + " | ".join(f"{n} objects, {m} relations | published | times faster" for n, m in SIZES) + " |")
    print("|---|" + "--:|--:|--:|" * len(SIZES))
    for name, (codec, job, published) in JOBS.items():
        cells = []
        for i, size in enumerate(SIZES):
            best, median = cpu_seconds(job, batches[codec, size], repeats)
            cells.append(f"{best:.3f} / {median:.3f}")
            if published:
                theirs = PUBLISHED[published][i]
                cells += [f"{theirs[0]:.2f} / {theirs[1]:.2f}", f"{theirs[0] / best:.0f}"]
            else:
                cells += ["", ""]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()
    for size in SIZES:
        scores = GraphScorer("toon", WIDTH, HEIGHT).many(*batches["toon", size])
        valid = sum(score.valid for score in scores) / len(scores)
        total = statistics.mean(map(SCENEGRAPHVLM.total, scores))
        print(f"* {size[0]} objects: {valid:.1%} valid, mean total {total:.6f} of {SCENEGRAPHVLM.maximum()}")
    print(
        f"* `python benchmarks/scoring.py`, {datetime.date.today()}, {processor()}, {os.cpu_count()} cores, ", end=""
    )
    print(f"Python {platform.python_version()}, numpy {numpy.__version__}, scipy {scipy.__version__}")


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
