"""What an export costs: CPU time and peak memory of each format, for two sizes of one folder of predictions.

    python benchmarks/export.py
    python benchmarks/export.py --graphs 1000 2000 --formats coco csv

The graphs are drawn, as large as PSG's (9.3 objects, 5.2 relations on average), and written as predictions of a run.
Each export is a process of its own, from the start of the interpreter to the last file. Prints Markdown. Of `graphml`,
which writes a file for each graph, the smaller size alone is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from text import around, random_graph

from sgrl.export import FORMATS
from sgrl.text import answer, get_codec
from sgrl.vocabulary import get_vocabulary

ROOT = Path(__file__).resolve().parent.parent
_DIFFERENT = 1000


def write_predictions(folder: Path, graphs: int) -> None:
    """A folder of a run with so many answers."""
    rng, codec, vocabulary = random.Random(0), get_codec("toon"), get_vocabulary("psg")
    different = []
    for _ in range(min(graphs, _DIFFERENT)):
        graph = random_graph(rng, vocabulary, around(rng, 9.3), around(rng, 5.2))
        confidence = [round(rng.random(), 4) for _ in graph.relations]
        row = {"width": graph.width, "height": graph.height, "confidence": confidence}
        different.append({"prediction": answer.wrap(codec.encode(graph))} | row)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"model": "drawn", "codec": codec.name}))
    with open(folder / "predictions.jsonl", "w") as file:
        for i in range(graphs):
            file.write(json.dumps({"dataset": "psg", "image_id": str(i)} | different[i % len(different)]) + "\n")


def cost_of(source: Path, name: str, output: Path) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of an export."""
    command = [sys.executable, "-m", "sgrl.export", str(source), "--to", name, "--output", str(output)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(log.read())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def size_of(path: Path) -> float:
    """MB of a file or a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, nargs=2, default=[10_000, 100_000], metavar="N")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    args = parser.parse_args()
    few, many = sorted(args.graphs)
    print(f"| format | MB of {few:,} | CPU s | peak MB | MB of {many:,} | CPU s | peak MB | graphs per CPU s |")
    print("| --- " + "| --: " * 7 + "|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in (few, many):
            write_predictions(folder / str(number), number)
        for name in args.formats:
            cells, rate = [], 0.0
            for number in (few, many):
                if name == "graphml" and number == many:
                    cells += ["", "", ""]
                    continue
                output = folder / "out"
                cpu, peak = cost_of(folder / str(number), name, output)
                cells += [f"{size_of(output):.1f}", f"{cpu:.1f}", f"{peak:.0f}"]
                rate = number / cpu
                shutil.rmtree(output) if output.is_dir() else output.unlink()
            print(f"| {name} | {' | '.join(cells)} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
