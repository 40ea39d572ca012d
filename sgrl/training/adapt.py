"""What a configuration becomes on this machine: its precision on a CPU, its batches on this many processes."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator
from typing import Any

from sgrl import precision
from sgrl.errors import SgrlError

logger = logging.getLogger(__name__)

HALVES = {"bf16": "bfloat16", "fp16": "float16", "bf16_full_eval": "bfloat16", "fp16_full_eval": "float16"}
"""The trainers' switches -> what they compute in."""


def adapted(config: dict[str, Any], given: dict[str, Any], names: Collection[str]) -> list[str]:
    """Options to add to a command line, so that the configuration fits the machine; says in the log what they change.

    Args:
        config: of the YAML file. given: what the command line itself says, by the names of its options.
        names: the options that there are.
    """
    return [*_precision(config, given, names), *_batches(config, given, names)]


def _precision(config: dict[str, Any], given: dict[str, Any], names: Collection[str]) -> Iterator[str]:
    """On a CPU float32, unless the command line asks for something else: a YAML file's precision is for GPUs."""
    if "bf16" not in names or precision.device(given.get("use_cpu", config.get("use_cpu", False))) != "cpu":
        return
    asked = {switch: dtype for switch, dtype in HALVES.items() if given.get(switch)}
    for dtype in sorted({*asked.values()}):
        precision.choose("cpu", dtype)  # warns
    if "use_cpu" not in given and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") != "true":
        # Without it transformers refuses half precision, and processes that find no GPU train apart from each other.
        yield from ("--use_cpu", "true")
    if not asked:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # accelerate's file is for GPUs too
    for switch in HALVES:
        if switch in names and switch not in given:
            yield from (f"--{switch}", "false")
    if given.get("dtype") in precision.HALVES:
        precision.choose("cpu", given["dtype"])
    elif "dtype" in names and "dtype" not in given:
        yield from ("--dtype", "float32")
    left = [f"{name}: {config[name]}" for name in HALVES if config.get(name) and name not in given]
    if config.get("dtype", "float32") != "float32" and "dtype" not in given:
        left.append(f"dtype: {config['dtype']}")
    if left:
        logger.info("float32 on this CPU; %s is for GPUs, or to be given as an option", ", ".join(left))


def _batches(config: dict[str, Any], given: dict[str, Any], names: Collection[str]) -> Iterator[str]:
    """`global_batch_size` rows a step on any number of processes: fewer rows at a time on many, accumulated on few."""
    if "global_batch_size" not in names or "gradient_accumulation_steps" not in names:
        return
    settings = config | given
    wanted = settings.get("global_batch_size")
    processes = launched()
    rows = settings.get("per_device_train_batch_size", 8)
    accumulated = settings.get("gradient_accumulation_steps", 1)
    if not (isinstance(rows, int) and isinstance(accumulated, int)):
        return  # the parser says what they should be
    if wanted is not None and ("global_batch_size" in given or "gradient_accumulation_steps" not in given):
        rows, accumulated = split_batch(
            wanted, processes, rows, settings.get("num_generations", 1), settings.get("steps_per_generation")
        )
        yield from ("--per_device_train_batch_size", str(rows), "--gradient_accumulation_steps", str(accumulated))
    total = rows * processes * accumulated
    logger.info(
        "a step takes %d %s: %d at a time on %d process%s, accumulated %d time%s%s",
        total,
        "answers" if "num_generations" in names else "rows",
        rows,
        processes,
        "es" * (processes != 1),
        accumulated,
        "s" * (accumulated != 1),
        f"; the configuration means {wanted}" if wanted not in (None, total) else "",
    )


def launched() -> int:
    """How many processes the launcher started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def split_batch(
    wanted: int, processes: int, most: int, generations: int = 1, rounds: int | None = None
) -> tuple[int, int]:
    """Rows at a time on a process, and how often they accumulate: times `processes` they are `wanted`, or near it.

    Args:
        most: rows that a process has memory for.
        generations: GRPO's answers to a prompt; a process's batch of rollouts holds whole groups of them.
        rounds: how many times the rows at a time that batch has. Default: as many as are accumulated.

    Raises:
        SgrlError: for numbers below 1.

    >>> split_batch(32, 4, 4), split_batch(32, 1, 4), split_batch(32, 16, 4)
    ((4, 2), (4, 8), (2, 1))
    """
    if not (isinstance(wanted, int) and isinstance(most, int) and wanted >= 1 and most >= 1):
        raise SgrlError(
            f"global_batch_size ({wanted}) and per_device_train_batch_size ({most}) must be whole numbers from 1"
        )
    fewest = math.ceil(wanted / (most * processes))
    found = []
    for accumulated in range(fewest, 2 * fewest + 1):
        for rows in range(1, most + 1):
            if rows * (rounds or accumulated) % generations == 0:
                found.append((abs(rows * processes * accumulated - wanted), accumulated, rows))
    _, accumulated, rows = min(found, default=(0, fewest, most))
    return rows, accumulated
