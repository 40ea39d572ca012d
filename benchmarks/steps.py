"""Where the time of a GRPO step goes: measured in a process of its own, for grpo_step.py and gpu.py.

Prompts are noise images with references of 10 objects and 8 relations. All completions have the same length, and since
a random model writes no graphs, what the rewards score is what a trained one might write instead (graphs.py). On a GPU
time is that of the clock, on a CPU that of the process, so that other processes on the core do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sgrl.command import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("rollout", "reward", "weight sync", "log-probabilities", "update")


@dataclass
class Settings:
    """`completions` of `tokens` tokens a step, `group` for each image of `image` pixels, after prompts of `words`.

    `ends`: completions end where the model ends them, after at most `tokens`.
    `generation_batch`: completions that are generated at once, for as many steps as they last; None: those of a step.
    `rollouts`: numbers of sequences whose generation is timed alone.
    """

    model: str
    vllm: bool = True
    steps: int = 6  # the first is not counted
    completions: int = 24
    generation_batch: int | None = None
    group: int = 12
    tokens: int = 160
    ends: bool = False
    image: tuple[int, int] = (96, 96)
    words: int = 0
    rollouts: tuple[int, ...] = ()
    rounds: int = 3
    training: dict[str, Any] = field(default_factory=dict)  # further arguments of GRPOConfig


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds of each of PARTS per step (medians), the share of each, tokens a second, peak memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        words = [sys.executable, __file__, json.dumps(asdict(settings)), str(result)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{settings} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
        return json.loads(result.read_text())


class Stopwatch:
    """Adds up how long parts take; what happens inside another part counts for the inner one alone."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._open: list[list] = []  # [part, since]

    def wrap(self, owner: object, name: str, part: str) -> None:
        """Count the calls of `owner.name`, an instance's method, as `part`."""
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, name, timed)

    def enter(self, part: str) -> None:
        self._count()
        self._open.append([part, self.clock()])

    def leave(self) -> None:
        self._count()
        self._open.pop()
        if self._open:
            self._open[-1][1] = self.clock()

    def _count(self) -> None:
        if self._open:
            part, since = self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + self.clock() - since


################
# The process
################


def run(settings: Settings) -> dict[str, Any]:
    import resource

    import torch
    from transformers import TrainerCallback

    gpu = torch.cuda.is_available()

    def clock() -> float:
        if not gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    trainer, written = build_trainer(settings)
    watch, steps = Stopwatch(clock), []

    class Steps(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            watch.seconds = dict.fromkeys(PARTS, 0.0)
            watch.enter("update")

        def on_step_end(self, *args, **kwargs):
            watch.leave()
            steps.append(watch.seconds)

    watch.wrap(trainer, "_generate_and_score_completions", "log-probabilities")
    generate, tokens = trainer._generate_single_turn, []

    def generate_and_count(*args, **kwargs):
        completions, logprobs = generate(*args, **kwargs)
        tokens.append(sum(map(len, completions)))
        return completions, logprobs

    trainer._generate_single_turn = generate_and_count
    watch.wrap(trainer, "_generate_single_turn", "rollout")
    if settings.vllm:
        watch.wrap(trainer.vllm_generation, "sync_weights", "weight sync")
    score = trainer._calculate_rewards

    def score_graphs(inputs, prompts, completions, completion_ids):
        watch.enter("choosing texts")  # none of the rewards' work
        texts = [[{"role": "assistant", "content": next(written[row["image_id"]])}] for row in inputs]
        watch.leave()
        watch.enter("reward")
        scores = score(inputs, prompts, texts, completion_ids)
        watch.leave()
        return scores

    trainer._calculate_rewards = score_graphs
    trainer.add_callback(Steps)
    trainer.train()

    every = (settings.generation_batch or settings.completions) // settings.completions
    counted = steps[every:]  # the first generation warms everything up
    means = {
        part: statistics.median(
            statistics.fmean(step[part] for step in counted[i : i + every]) for i in range(0, len(counted), every)
        )
        for part in PARTS
    }
    total = sum(means.values())
    peak = torch.cuda.max_memory_reserved() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": means,
        "step": total,
        "shares": {part: seconds / total for part, seconds in means.items()},
        "tokens_per_second": statistics.median(tokens[1:]) / every / means["rollout"],
        "peak_gib": peak / 2**30,
        "rollouts": {str(n): rollout(trainer, settings, n, clock) for n in settings.rollouts},
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "torch": torch.__version__,
    }


def build_trainer(settings: Settings):
    """The trainer of the recipes with the full reward; and for each image id an endless iterator of completions."""
    import itertools

    import numpy as np
    import torch
    from datasets import Dataset, Features, Image, Value
    from graphs import HEIGHT, WIDTH, workload
    from PIL import Image as Pictures

    from rewards.trl import rewards_named
    from sgrl.models.vlm.processor import load_processor
    from sgrl.training.grpo import GRPOConfig, SceneGraphGRPOTrainer
    from sgrl.training.model import load_model

    texts, solutions = workload("toon", 10, 8)
    references = list(dict.fromkeys(solutions))
    written: dict[str, Iterator[str]] = {
        str(i): itertools.cycle([text for text, solution in zip(texts, solutions, strict=True) if solution == one])
        for i, one in enumerate(references)
    }
    generator = np.random.default_rng(0)
    prompt = "Write the scene graph of this image." + " word" * settings.words

    def rows():
        for i, solution in enumerate(references):
            pixels = generator.integers(0, 256, (*reversed(settings.image), 3), dtype=np.uint8)
            yield {
                "image": Pictures.fromarray(pixels),
                "prompt": [{"role": "user", "content": prompt}],
                "solution": solution,
                "width": WIDTH,
                "height": HEIGHT,
                "image_id": str(i),
            }

    features = Features(
        {
            "image": Image(),
            "prompt": [{"role": Value("string"), "content": Value("string")}],
            **{name: Value("string") for name in ("solution", "image_id")},
            **{name: Value("int32") for name in ("width", "height")},
        }
    )
    data = Dataset.from_list(list(rows()), features=features)
    length: dict[str, Any] = {}
    if not settings.ends:
        limits = {"min_tokens": settings.tokens, "ignore_eos": True}
        length = limits if settings.vllm else {"min_new_tokens": settings.tokens}
    functions, weights = rewards_named(["full"])
    gpu = torch.cuda.is_available()
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=settings.completions,
        generation_batch_size=settings.generation_batch or settings.completions,
        num_generations=settings.group,
        max_completion_length=settings.tokens,
        max_steps=settings.steps,
        reward_weights=weights,
        generation_kwargs=length,
        use_vllm=settings.vllm,
        vllm_importance_sampling_mode="token_truncate",
        loss_type="grpo",
        beta=0.04,  # as published, with its forward pass through the reference model
        scale_rewards="none",
        learning_rate=6e-7,
        bf16=gpu,
        gradient_checkpointing=gpu,
        log_multimodal=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings.training,
    )
    model = load_model(settings.model, "decoder", dtype=torch.float32)
    # TRL lets vLLM work on as many sequences at once as a step has
    engine = {"max_num_seqs": max(settings.completions, *settings.rollouts, 0)}
    processor = load_processor(settings.model)
    trainer = SceneGraphGRPOTrainer(model, functions, args, processor, vllm_engine_kwargs=engine, train_dataset=data)
    return trainer, written


def rollout(trainer, settings: Settings, sequences: int, clock: Callable[[], float]) -> float:
    """Tokens a second of `sequences` completions, 4 for each image, images and prompts included."""
    import torch

    def generate(first: int) -> tuple[int, float]:
        prompts = []
        for i in range(max(1, sequences // 4)):
            row = trainer.train_dataset[(first + i) % len(trainer.train_dataset)]
            text = {"type": "text", "text": row["prompt"][0]["content"]}
            prompt = [{"role": "user", "content": [{"type": "image", "image": row["image"]}, text]}]
            prompts += [prompt] * min(4, sequences)
        start = clock()
        with torch.no_grad():
            completions, _ = trainer._generate_single_turn(*trainer._tokenize_prompts(prompts), min(4, sequences))
        return sum(map(len, completions)), clock() - start

    trainer.model.eval()
    generate(0)  # warms up, and brings the last weights to vLLM
    return statistics.median(tokens / seconds for tokens, seconds in map(generate, range(1, 7 * settings.rounds, 7)))


if __name__ == "__main__":
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    Path(sys.argv[2]).write_text(json.dumps(run(Settings(**json.loads(sys.argv[1])))))
