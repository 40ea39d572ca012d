"""How long does Recall@K take? One thread; CPU time of the process.

    python benchmarks/recall.py

Action Genome: as many frames as its test set has (57,000), each with 2 or 3 objects and about 10 reference relations,
as texts that a model might write and as a detector's scores: 4 pairs of objects in a frame (104 scored triplets) and
100 (2,600, as many as OED's queries give). 2,000 different frames are drawn and then repeated.
"""

from __future__ import annotations

import sys

# a script's own folder comes first, and there `rewards` would be another file
sys.path.pop(0)

import argparse
import datetime
import itertools
import os
import platform
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np

from rewards.recall import PairScores
from rewards.recall_action_genome import ActionGenomeRecall
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer, get_codec
from sgrl.vocabulary import get_vocabulary

WIDTH, HEIGHT = 640, 480
DIFFERENT = 2000
AG = get_vocabulary("action_genome")
Job = tuple[str, Callable[[], ActionGenomeRecall], list[tuple]]


def draw_frame(rng: random.Random) -> SceneGraph:
    """A person and 2 or 3 objects; of each one attention, one or two spatial and one to three contacting relations."""

    def box() -> tuple[int, int, int, int]:
        x, y = rng.randrange(WIDTH - 60), rng.randrange(HEIGHT - 60)
        return x, y, min(WIDTH, x + rng.randrange(30, 300)), min(HEIGHT, y + rng.randrange(30, 250))

    objects = [Object("person", box())]
    relations = []
    for i in range(1, rng.randint(2, 3) + 1):
        objects.append(Object(rng.choice(AG.objects[1:]), box()))
        for (group, labels), most in zip(AG.groups.items(), (1, 2, 3), strict=True):
            relations += [Relation(0, label, i, group) for label in rng.sample(labels, rng.randint(1, most))]
    return SceneGraph(objects, relations, WIDTH, HEIGHT)


def written(rng: random.Random, graph: SceneGraph) -> str:
    """What a model might write of it: boxes some pixels off, one label in five wrong."""
    objects = [
        Object(
            o.label if rng.random() < 0.9 else rng.choice(AG.objects[1:]),
            [max(0, v - rng.randrange(8)) for v in o.box],
        )
        for o in graph.objects[1:]
    ]
    relations = {
        (r.object, r.group, r.predicate if rng.random() < 0.8 else rng.choice(AG.groups[r.group])): None
        for r in graph.relations
    }
    relations = [Relation(0, label, i, group) for i, group, label in relations]
    drawn = SceneGraph([graph.objects[0], *objects], relations, WIDTH, HEIGHT)
    return answer.wrap(get_codec("toon-pairs").encode(drawn))


def detected(rng: np.random.Generator, graph: SceneGraph, pairs: int) -> PairScores:
    """A detector's scores: the person, the true objects somewhat moved, and others, each paired with the person."""
    true = len(graph.objects)
    boxes = np.concatenate([graph.boxes, graph.boxes[rng.integers(true, size=pairs + 1 - true)]])
    boxes += rng.normal(0, 6, boxes.shape)
    labels = [o.label for o in graph.objects] + [AG.objects[i] for i in rng.integers(1, 36, size=pairs + 1 - true)]
    ends = np.stack([np.zeros(pairs, dtype=np.int64), np.arange(1, pairs + 1)], axis=1)
    return PairScores(labels, boxes, rng.random(pairs + 1), ends, rng.random((pairs, len(AG.predicates))))


def action_genome() -> Iterable[Job]:
    rng, numbers = random.Random(0), np.random.default_rng(0)
    graphs = [draw_frame(rng) for _ in range(DIFFERENT)]
    encode = get_codec("toon-pairs").encode
    references = [encode(graph) for graph in graphs]
    texts = [(written(rng, graph), reference) for graph, reference in zip(graphs, references, strict=True)]
    few, many = ([(detected(numbers, graph, pairs), graph) for graph in graphs] for pairs in (4, 100))
    for constraint in ("with", "semi", "no"):
        for name, frames in (("texts", texts), ("4 pairs", few), ("100 pairs", many)):
            yield f"{name}, {constraint} constraint", lambda c=constraint: ActionGenomeRecall(WIDTH, HEIGHT, c), frames
    for constraint in ("with", "no"):
        for protocol, frames in (("published", texts), ("oed-nms", many)):
            yield (
                f"{'texts' if frames is texts else '100 pairs'}, {constraint} constraint, {protocol}",
                lambda c=constraint, p=protocol: ActionGenomeRecall(WIDTH, HEIGHT, c, protocol=p),
                frames,
            )


def measure(make: Callable[[], ActionGenomeRecall], frames: list[tuple], number: int) -> tuple[float, float, dict]:
    """CPU seconds of `number` frames, bytes that the counts have grown by in the second half of as many as there are
    different ones, and the figures."""
    counted = make()
    start = time.process_time()
    for prediction, reference in itertools.islice(itertools.cycle(frames), number):
        counted.add(prediction, reference)
    seconds = time.process_time() - start
    figures = counted.compute()
    tracemalloc.start()
    half = len(frames) // 2
    for prediction, reference in frames[:half]:
        counted.add(prediction, reference)
    before = tracemalloc.get_traced_memory()[0]
    for prediction, reference in frames[half:]:
        counted.add(prediction, reference)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return seconds, grown, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=57_000, help="frames of Action Genome (default: 57,000)")
    number = parser.parse_args().frames
    print(f"| {number:,} frames of Action Genome | CPU seconds | frames/s | memory per 1,000 frames | R@20 | mR@20 |")
    print("| --- | --: | --: | --: | --: | --: |")
    for name, make, frames in action_genome():
        seconds, grown, figures = measure(make, frames, number)
        recall, mean = figures["recall@20"], figures["mean_recall@20"]
        print(
            f"| {name} | {seconds:.1f} | {number / seconds:,.0f} | {grown:,} bytes | {recall:.3f} | {mean:.3f} |",
            flush=True,
        )
    print(
        f"\n* `python benchmarks/recall.py`, {datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, ",
        end="",
    )
    print(f"Python {platform.python_version()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
