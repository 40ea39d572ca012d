"""How fast are the strict metrics, and how much memory do they take?

    python benchmarks/metrics.py

Samples like those of PSG's test set (5 to 14 objects, 2 to 8 relations; mean 9.5 and 5) and larger ones, each with a
reference of its own, 94 % of the predictions valid. One thread, CPU time of the process, best of 40 runs over 500
samples; peak memory of a process that scores a stream. Prints a Markdown table. The published evaluator's figures
(3,100 samples a second, 182 MB at 10,000 samples) are constants here: its code is no part of this project.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
from graphs import HEIGHT, WIDTH, disturb, draw_graph

from rewards.evaluation import Evaluation
from rewards.metrics import SceneGraphMetrics
from sgrl.text import answer, get_codec

SIZES = {"like PSG": ((5, 14), (2, 8)), "10 objects, 8 relations": ((10, 10), (8, 8)), "40, 60": ((40, 40), (60, 60))}
PUBLISHED_RATE, PUBLISHED_MEMORY = 3100, 182
DIFFERENT = 500  # samples that are drawn; longer streams repeat them


def draw(count: int, size: str = "like PSG", codec: str = "toon") -> list[dict]:
    """Rows of predictions with their references."""
    rng = random.Random(0)
    encode = get_codec(codec).encode
    rows = []
    for number in range(count):
        objects, relations = (rng.randint(*bounds) for bounds in SIZES[size])
        graph = draw_graph(rng, objects, relations)
        written = disturb(rng, graph)
        text = answer.wrap(encode(written))
        rows.append(
            {
                "image_id": str(number),
                "solution": encode(graph),
                "prediction": text if rng.random() < 0.94 else text[: rng.randrange(len(text))],
                "confidence": [rng.random() for _ in written.relations],
                **{"width": WIDTH, "height": HEIGHT, "tokens": 200, "seconds": 0.1, "finish_reason": "stop"},
            }
        )
    return rows


def stream(rows: list[dict], count: int) -> Iterator[dict]:
    return itertools.islice(itertools.cycle(rows), count)


def metrics(rows, codec: str = "toon") -> dict:
    counted = SceneGraphMetrics(codec, WIDTH, HEIGHT)
    samples = ((row["prediction"], row["solution"]) for row in rows)
    while block := list(itertools.islice(samples, 256)):
        for found in counted.compare_many(block):
            counted.count(found)
    return counted.compute()


def evaluation(rows) -> dict:
    counted = Evaluation("toon")
    counted.add_all(rows)
    return counted.compute()


JOBS: dict[str, Callable] = {"metrics": metrics, "evaluation": evaluation}


def best_seconds(job: Callable, *arguments, repeats: int = 40) -> float:
    """CPU time of this process."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        job(*arguments)
        times.append(time.process_time() - start)
    return min(times)


def peak(job: str, samples: int) -> int:
    """Peak memory in MB of a process that scores so many samples."""
    command = [sys.executable, __file__, "--peak", job, str(samples)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def command_line(rows: list[dict]) -> tuple[float, int]:
    """CPU seconds and peak memory in MB of `python -m rewards score` on these rows, with a data set."""
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as folder:
        references = [{k: row[k] for k in ("image_id", "solution", "width", "height")} for row in rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(references), f"{folder}/test.parquet")
        with open(f"{folder}/predictions.jsonl", "w") as file:
            for row in rows:
                file.write(json.dumps({k: row[k] for k in ("image_id", "prediction", "confidence")}) + "\n")
        return spent(f"{folder}/predictions.jsonl", "--reference", f"{folder}/test.parquet")


def of_one_file(rows: list[dict]) -> tuple[float, int]:
    """The same of a file in SceneGraphVLM's layout, whose prompts list the classes."""
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/psg.jsonl", "w") as file:
            for row in rows:
                truth = answer.wrap(row["solution"])
                said = [{"role": "user", "content": "word " * 379}, {"role": "assistant", "content": truth}]
                found = {"messages": said, "images": [f"C:\\psg\\{row['image_id']}.jpg"], "content": truth}
                file.write(json.dumps(found | {"predict": row["prediction"], "gen_time_sec": 0.3}) + "\n")
        return spent(f"{folder}/psg.jsonl")


def spent(*arguments: str) -> tuple[float, int]:
    """CPU seconds and peak memory in MB of `python -m rewards score` with these arguments."""
    words = ["-m", "rewards", "score", *arguments]
    code = "import os, resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, "
    code += "stdout=subprocess.DEVNULL); u = resource.getrusage(resource.RUSAGE_CHILDREN); "
    code += "print(u.ru_utime + u.ru_stime, u.ru_maxrss // 1024)"
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="of the table (default: %(default)s)")
    parser.add_argument("--peak", nargs=2, metavar=("JOB", "SAMPLES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        job, samples = args.peak
        JOBS[job](stream(draw(min(DIFFERENT, int(samples))), int(samples)))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    few, many = args.samples, 10 * args.samples
    different = min(DIFFERENT, few)
    print("| | published | sgrl | better |\n|---|--:|--:|--:|")
    for size in SIZES:
        rows = draw(different, size)
        rate = different / best_seconds(metrics, rows)
        published, times = (
            (f"{PUBLISHED_RATE:,}", f"{rate / PUBLISHED_RATE:.1f} x") if size == "like PSG" else ("", "")
        )
        print(f"| strict metrics, samples {size}, per second | {published} | {rate:,.0f} | {times} |", flush=True)
    rows = draw(different, codec="json")
    print(f"| the same like PSG, as JSON, per second | | {different / best_seconds(metrics, rows, 'json'):,.0f} | |")
    rows = list(stream(draw(different), few))
    rate = few / best_seconds(evaluation, rows, repeats=3)
    print(
        f"| with intervals, predicates, reasons and calibration, like PSG, per second | | {rate:,.0f} | |", flush=True
    )
    for job, name in (("metrics", "strict metrics"), ("evaluation", "with intervals and so on")):
        memory = [peak(job, samples) for samples in (few, many)]
        published, times = (
            (f"{PUBLISHED_MEMORY} MB", f"{PUBLISHED_MEMORY / memory[0]:.1f} x") if job == "metrics" else ("", "")
        )
        print(f"| {name}: peak memory, {few:,} samples | {published} | {memory[0]} MB | {times} |")
        print(f"| {name}: peak memory, {many:,} samples | | {memory[1]} MB | |", flush=True)
    rows = [row | {"image_id": str(number)} for number, row in enumerate(stream(draw(different), few))]
    for job, what in ((command_line, ""), (of_one_file, ", SceneGraphVLM's own file")):
        seconds, memory = job(rows)
        print(f"| `python -m rewards score`, {few:,} images{what} | | {seconds:.1f} s CPU, {memory} MB | |")
    print(
        f"\n`{' '.join(['python', Path(__file__).parent.name + '/' + Path(__file__).name, *sys.argv[1:]])}`, "
        f"{datetime.date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"numpy {numpy.__version__}"
    )


if __name__ == "__main__":
    main()
