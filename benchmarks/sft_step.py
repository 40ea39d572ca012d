"""Where does the time of an SFT step go on a CPU, and what does the precision make of it?

    python benchmarks/sft_step.py
    python benchmarks/sft_step.py --bfloat16 --rows 32 --calls

A step of the tiny model as recipes/configs/toy/sft.yaml takes it, in one process with one thread: images and texts are
prepared, forward, backward, Muon. Seconds are CPU time, the median of `--steps`, so that other work on the machine
counts little. `--bfloat16` adds the same under autocast (minutes, where the CPU has no units for it), `--calls` the
operators that take longest. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("images and texts", "forward", "backward", "clipping", "optimizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build/sft_step", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=16, help="of a step and process (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=9, help="the first is not counted (default: %(default)s)")
    parser.add_argument("--bfloat16", action="store_true", help="measure autocast to bfloat16 too")
    parser.add_argument("--calls", action="store_true", help="the operators that take longest")
    args = parser.parse_args()
    prepare(args.work_dir)
    found = {"float32": measure(args.work_dir, args.rows, args.steps, False)}
    if args.bfloat16:
        found["bfloat16"] = measure(args.work_dir, args.rows, 3, True)
    print(table(found))
    if args.calls:
        print(f"\n```\n{calls(args.work_dir, args.rows)}\n```")
    print(f"\n{datetime.date.today()}, {processor()}. Command: `{shlex.join(['python', *sys.argv])}`")


def prepare(folder: Path) -> None:
    """Draw and convert a small world and build a model, where that is not done."""
    python, world, data = sys.executable, folder / "world", folder / "data"
    convert = ["--layout", "psg", "--root", world, "--output", data, "--resize", "keep", "--prompt", "short"]
    for place, command in (
        (world, ["data_prep/toyworld.py", "--output", world, "--train", 400, "--test", 8]),
        (data, ["data_prep/to_toon.py", *convert]),
        (folder / "model", ["-m", "sgrl.tiny", "--output", folder / "model"]),
    ):
        if not place.exists():
            subprocess.run([python, *map(str, command)], cwd=ROOT, check=True, capture_output=True)


def build(folder: Path, rows: int):
    """The model that trains, its optimizer, and a function that gives the n-th batch."""
    import torch

    sys.path.insert(0, str(ROOT))
    from sgrl.data import load
    from sgrl.models.vlm.processor import load_processor
    from sgrl.training.model import load_model
    from sgrl.training.muon import Muon
    from sgrl.training.sft import COLUMNS, SceneGraphCollator

    torch.manual_seed(0)
    processor = load_processor(str(folder / "model"))
    model = load_model(str(folder / "model"), "all", dtype=torch.float32, attn_implementation="eager").train()
    model.config.use_cache = False
    collator = SceneGraphCollator(processor, completion_only_loss=True)
    data = load(folder / "data", "train").select_columns(list(COLUMNS))

    def batch(n: int) -> dict:
        first = n * rows % (len(data) - rows)
        return collator([data[i] for i in range(first, first + rows)])

    return model, Muon(model.named_parameters(), lr=5e-3), batch


def measure(folder: Path, rows: int, steps: int, bfloat16: bool) -> dict[str, float]:
    """CPU seconds of each part."""
    import torch

    model, optimizer, batch = build(folder, rows)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for n in range(steps):
        marks = [time.process_time()]
        inputs = batch(n)
        marks.append(time.process_time())
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext():
            loss = model(**inputs).loss
        marks.append(time.process_time())
        loss.backward()
        marks.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        marks.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.process_time())
        for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
            seconds[part].append(end - start)
    return {part: statistics.median(times[1:]) for part, times in seconds.items()}


def calls(folder: Path, rows: int) -> str:
    """The operators of a step, by their own CPU time."""
    from torch.profiler import ProfilerActivity, profile

    model, optimizer, batch = build(folder, rows)
    inputs = batch(0)
    for n in range(2):
        with profile(activities=[ProfilerActivity.CPU]) if n else contextlib.nullcontext() as found:
            model(**inputs).loss.backward()
            optimizer.step()
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)


def table(found: dict[str, dict[str, float]]) -> str:
    lines = ["| CPU time | " + " | ".join(f"{name} | share" for name in found) + " |"]
    lines.append("| --- |" + " --: | --: |" * len(found))
    for part in (*PARTS, "step"):
        cells = []
        for times in found.values():
            total = sum(times.values())
            value = total if part == "step" else times[part]
            cells.append(f"{1000 * value:,.0f} ms | {value / total:.0%}")
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def processor() -> str:
    """The name of the processor, and which half precisions it has units for."""
    from sgrl.precision import describe_cpu

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores; {describe_cpu()}"


if __name__ == "__main__":
    main()
