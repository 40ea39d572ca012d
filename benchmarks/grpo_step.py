"""Where does the time of a GRPO step go, and how much faster does vLLM write the rollouts?

    python benchmarks/grpo_step.py
    python benchmarks/grpo_step.py --model build/demo/sft --tokens 80

A step of 24 completions, 12 for each image, scored as graphs of 10 objects with the full reward. Then the rollouts
alone, at 8 and 64 sequences, by vLLM in the trainer's process and by transformers' generate. Without --model the tiny
model has random weights and all completions have the same length; with it they end where the model ends them.
benchmarks/gpu.py measures a model of a published size. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import subprocess
import sys
from pathlib import Path

from steps import PARTS, ROOT, Settings, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--steps", type=int, default=8, help="the first is not counted (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=160, help="of each completion (default: %(default)s)")
    parser.add_argument("--sequences", type=int, nargs="+", default=[8, 64], help="default: 8 64")
    parser.add_argument("--rounds", type=int, default=3, help="of each number of sequences (default: %(default)s)")
    args = parser.parse_args()
    ends = args.model is not None
    if args.model is None:
        args.model = ROOT / "build/grpo_step/model"
        command = [sys.executable, "-m", "sgrl.tiny", "--output", args.model]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    common = {
        "model": str(args.model),
        "steps": args.steps,
        "tokens": args.tokens,
        "rounds": args.rounds,
        "ends": ends,
    }
    found = {
        name: measure(Settings(**common, vllm=vllm, rollouts=tuple(args.sequences)))
        for name, vllm in (("vLLM", True), ("transformers", False))
    }
    length = f"at most {args.tokens}" if ends else str(args.tokens)
    print(table(found))
    print(f"\n| sequences of {length} tokens | vLLM | transformers' generate | times faster |")
    print("| --- | --: | --: | --: |")
    for count in map(str, args.sequences):
        ours, theirs = (found[name]["rollouts"][count] for name in ("vLLM", "transformers"))
        print(f"| {count} | {ours:,.0f} tokens/s | {theirs:,.0f} tokens/s | {ours / theirs:.1f} |")
    seconds = found["vLLM"]["seconds"]["reward"]
    print(f"\nThe rewards take {1000 * seconds:.2f} ms: under 2 % of all steps longer than {50 * seconds:.2f} s.")
    device = f"{found['vLLM']['device']}, {os.cpu_count()} cores, torch {found['vLLM']['torch']}"
    print(f"\n{datetime.date.today()}, {device}. Command: `{shlex.join(['python', *sys.argv])}`")


def table(found: dict[str, dict]) -> str:
    """The parts of a step of each kind of rollout, and their shares."""
    lines = ["| | " + " | ".join(f"{name} | share" for name in found) + " |", "| --- |" + " --: | --: |" * len(found)]
    for part in PARTS:
        cells = (f"{1000 * one['seconds'][part]:,.1f} ms | {one['shares'][part]:.1%}" for one in found.values())
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append("| step | " + " | ".join(f"{1000 * one['step']:,.1f} ms | " for one in found.values()) + "|")
    lines.append("| peak memory | " + " | ".join(f"{one['peak_gib']:.2f} GiB | " for one in found.values()) + "|")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
