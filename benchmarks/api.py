"""What does `SceneGraphModel` cost beside its engine? CPU seconds of the same calls, within the engine and in all.

    python benchmarks/api.py --model build/demo/sft --dataset build/demo/data

The bare engine gets images that are open and small and chats that are ready. The model makes the chats, reads the
answers and counts the confidences; with images of twice the sides (`--enlarge 2`) it makes them smaller, as a task of
one size wants, and brings the boxes into their pixels. The engine is transformers with one thread; what it writes is
then replaced by the references, so that there are graphs to read whatever the model has learnt.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from dataclasses import replace


class Replayed:
    """An engine that works for real and then says the references, one after the other, in pieces of a token each.

    seconds: of its thread, in the engine.
    """

    def __init__(self, engine, answers: list[str], pattern: str):
        import re

        self.seconds = 0.0
        self._engine, self._answers = engine, itertools.cycle(answers)
        self._split = re.compile(f"{pattern}|.", re.DOTALL).findall
        self.name, self.batch_size = engine.name, engine.batch_size

    def generate(self, images, prompts, grammars=None):
        start = time.thread_time()
        done = self._engine.generate(images, prompts, grammars)
        self.seconds += time.thread_time() - start
        return list(map(self._said, done))

    def _said(self, done):
        text = next(self._answers)
        pieces = self._split(text)
        return replace(done, text=text, pieces=pieces, logprobs=[-0.1] * len(pieces), finish_reason="stop")


def measure(args: argparse.Namespace) -> dict:
    """Median CPU seconds within the engine and in all, and by how much the latter is more, in each round."""
    import torch

    from sgrl import data
    from sgrl.inference import SceneGraphModel, load_engine
    from sgrl.task import Task
    from sgrl.text import get_codec

    torch.set_num_threads(1)  # threads that wait count as CPU time
    rows = data.load(args.dataset, "train").select(range(args.images))
    images = [row["image"].resize((args.enlarge * row["width"], args.enlarge * row["height"])) for row in rows]
    answers = [row["completion"][0]["content"] for row in rows]
    task = replace(Task.of_dataset(args.dataset), size=(rows[0]["width"], rows[0]["height"]))
    engine = load_engine("transformers", args.model, max_new_tokens=args.tokens, batch_size=args.batch_size)
    replayed = Replayed(engine, answers, get_codec(task.codec).token_pattern)
    model, rounds = SceneGraphModel(replayed, task), []
    for _ in range(args.rounds + 1):
        replayed.seconds, start = 0.0, time.process_time()
        graphs = [found.graph for found in model(images)]
        rounds.append((replayed.seconds, time.process_time() - start))
    assert all(graph.objects and graph.width == images[0].width for graph in graphs)
    inside, total = (statistics.median(column) for column in zip(*rounds[1:], strict=True))  # the first warms up
    more = [total / inside - 1 for inside, total in rounds[1:]]
    return {"images": len(images), "engine": inside, "model": total, "more": statistics.median(more), "each": more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="any model folder")
    add("--dataset", required=True, help="its train split is what is looked at")
    add("--images", type=int, default=200)
    add("--tokens", type=int, default=80, help="of each answer (default: %(default)s)")
    add("--batch-size", type=int, default=50)
    add("--rounds", type=int, default=5)
    add("--enlarge", type=int, default=2, help="sides of the images, in those of the task (default: %(default)s)")
    found = measure(parser.parse_args())
    print(json.dumps(found))
    print(
        f"{found['images']} images: engine {found['engine']:.2f} s, model {found['model']:.2f} s of CPU, "
        f"{found['more']:+.1%} (rounds {', '.join(f'{more:+.1%}' for more in found['each'])})"
    )


if __name__ == "__main__":
    main()
