"""How long does Recall@K take? One thread; CPU time of the process.

    python benchmarks/recall.py

Action Genome: as many frames as its test set has (57,000), each with 2 or 3 objects and about 10 reference relations,
as texts that a model might write and as a detector's scores: 4 pairs of objects in a frame (104 scored triplets) and
100 (2,600, as many as OED's queries give). 2,000 different frames are drawn and then repeated.

VG150: as many images as its test set has (26,000), each with 5 to 20 objects and 2 to 12 reference relations, as texts
and as a detector's scores of 100 candidate pairs of 64 boxes, so 100 candidate triplets with the graph constraint and
5,000 without; R, ngR, mR and zR at three K in one pass. Videos: 62 as in PVSG's validation split, 300 frames of
854 x 480 with 15 objects, 12 reference relations and 100 predicted ones, once from panoptic maps to tubes and once the
metric.
"""

from __future__ import annotations

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

from rewards.metrics.action_genome import ActionGenomeRecall
from rewards.metrics.recall import PairScores, SceneGraphRecall, triplets
from rewards.metrics.video import VideoRecall
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer, get_codec
from sgrl.tubes import TimedRelation, TubeObject, VideoGraph, tubes_of_maps
from sgrl.vocabulary import get_vocabulary

WIDTH, HEIGHT = 640, 480
DIFFERENT = 2000
AG, VG150 = get_vocabulary("action_genome"), get_vocabulary("vg150")
Job = tuple[str, Callable[[], ActionGenomeRecall | SceneGraphRecall | VideoRecall], list[tuple]]


def draw_box(rng: random.Random) -> tuple[int, int, int, int]:
    x, y = rng.randrange(WIDTH - 60), rng.randrange(HEIGHT - 60)
    return x, y, min(WIDTH, x + rng.randrange(30, 300)), min(HEIGHT, y + rng.randrange(30, 250))


def draw_frame(rng: random.Random) -> SceneGraph:
    """A person and 2 or 3 objects; of each one attention, one or two spatial and one to three contacting relations."""

    objects = [Object("person", draw_box(rng))]
    relations = []
    for i in range(1, rng.randint(2, 3) + 1):
        objects.append(Object(rng.choice(AG.objects[1:]), draw_box(rng)))
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


def action_genome(different: int = DIFFERENT) -> Iterable[Job]:
    rng, numbers = random.Random(0), np.random.default_rng(0)
    graphs = [draw_frame(rng) for _ in range(different)]
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


def vg150() -> Iterable[Job]:
    rng, numbers = random.Random(0), np.random.default_rng(0)
    pairs, boxes = 100, 64
    graphs, scores, texts = [], [], []
    encode = get_codec("toon").encode
    for _ in range(DIFFERENT):
        n = rng.randint(5, 20)
        objects = [Object(rng.choice(VG150.objects), draw_box(rng)) for _ in range(n)]
        relations = {(*rng.sample(range(n), 2), rng.choice(VG150.predicates)): None for _ in range(rng.randint(2, 12))}
        graph = SceneGraph(objects, [Relation(s, p, o) for s, o, p in relations], WIDTH, HEIGHT)
        said = [Relation(s, p if rng.random() < 0.6 else rng.choice(VG150.predicates), o) for s, o, p in relations]
        graphs.append(graph)
        texts.append((answer.wrap(encode(SceneGraph(objects, said, WIDTH, HEIGHT).cleaned()[0])), encode(graph)))
        others = numbers.integers(n, size=boxes - n)
        labels = [o.label for o in objects] + [VG150.objects[i] for i in numbers.integers(150, size=boxes - n)]
        moved = np.concatenate([graph.boxes, graph.boxes[others]]) + numbers.normal(0, 4, (boxes, 4))
        ends = numbers.integers(boxes, size=(pairs, 2))
        table = numbers.random((pairs, len(VG150.predicates))) ** 8
        for row, relation in enumerate(graph.relations):
            ends[row] = relation.subject, relation.object
            table[row, VG150.predicates.index(relation.predicate)] = rng.random()
        scores.append((PairScores(labels, moved, numbers.random(boxes), ends, table), graph))
    training = set().union(*map(triplets, graphs[: DIFFERENT // 2]))
    options = {"vocabulary": VG150, "training_triplets": training}
    yield "texts", lambda: SceneGraphRecall("toon", WIDTH, HEIGHT, **options), texts
    yield "texts, published", lambda: SceneGraphRecall("toon", WIDTH, HEIGHT, protocol="published", **options), texts
    yield "100 pairs", lambda: SceneGraphRecall(**options), scores


def draw_maps(
    seed: int, frames: int = 300, objects: int = 15, height: int = 480, width: int = 854
) -> list[np.ndarray]:
    """Panoptic maps of a video in which rectangles drift."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 0.7, (objects, 2)), rng.uniform(0.08, 0.4, (objects, 2))
    speed = rng.normal(0, 0.002, (objects, 2))
    maps = []
    for t in range(frames):
        canvas = np.zeros((height, width), dtype=np.uint8)
        for i in range(objects):
            (x, y), (w, h) = (corner[i] + speed[i] * t) % 0.8, size[i]
            canvas[int(y * height) : int((y + h) * height), int(x * width) : int((x + w) * width)] = i + 1
        maps.append(canvas)
    return maps


def videos(different: int = 5) -> Iterable[Job]:
    rng = random.Random(0)
    graphs, seconds = [], 0.0
    for seed in range(different):
        maps = draw_maps(seed)
        start = time.process_time()
        tubes = tubes_of_maps(maps)
        seconds += time.process_time() - start
        objects = [TubeObject(f"class {i % 8}", tube) for i, tube in tubes.items()]

        def relation(n: int = len(objects), frames: int = len(maps)) -> TimedRelation:
            subject, target = rng.sample(range(n), 2)
            first = rng.randrange(frames - 20)
            span = first, rng.randrange(first, frames)
            return TimedRelation(subject, f"predicate {rng.randrange(10)}", target, (span,), rng.random())

        truth = [relation() for _ in range(12)]
        graphs.append((VideoGraph(objects, truth + [relation() for _ in range(88)]), VideoGraph(objects, truth)))
    print(f"Panoptic maps to tubes: {1000 * seconds / different / len(maps):.2f} ms per frame of 854 x 480\n")
    yield "100 relations, masks", VideoRecall, graphs * 8


def measure(make: Callable, frames: list[tuple], number: int) -> tuple[float, float, dict]:
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
    counted.compute()  # sums what is pending
    before = tracemalloc.get_traced_memory()[0]
    for prediction, reference in frames[half:]:
        counted.add(prediction, reference)
    counted.compute()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return seconds, grown, figures


def table(what: str, one: str, number: int, jobs: Iterable[Job]) -> None:
    rows = [f"| {number:,} {what} | CPU seconds | {one}s/s | memory per 1,000 {one}s | R@20 | mR@20 |"]
    rows.append("| --- | --: | --: | --: | --: | --: |")
    for name, make, frames in jobs:
        seconds, grown, figures = measure(make, frames, number)
        grown = round(grown * 1000 / (len(frames) - len(frames) // 2))
        recall, mean = figures["recall@20"], figures["mean_recall@20"]
        rows.append(
            f"| {name} | {seconds:.1f} | {number / seconds:,.0f} | {grown:,} bytes | {recall:.3f} | {mean:.3f} |"
        )
        print("\n".join(rows), flush=True)
        rows.clear()
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=57_000, help="frames of Action Genome, 0 for none")
    parser.add_argument("--images", type=int, default=26_000, help="images of VG150, 0 for none")
    parser.add_argument("--videos", type=int, default=62, help="videos of PVSG, 0 for none")
    arguments = parser.parse_args()
    if arguments.frames:
        table("frames of Action Genome", "frame", arguments.frames, action_genome(min(DIFFERENT, arguments.frames)))
    if arguments.images:
        table("images of VG150", "image", arguments.images, vg150())
    if arguments.videos:
        table("videos of PVSG's length", "video", arguments.videos, videos())
    print(f"* `python benchmarks/recall.py`, {datetime.date.today()}, {os.cpu_count()} cores, ", end="")
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
