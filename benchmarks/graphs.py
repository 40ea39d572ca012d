"""Random graphs for the benchmarks: references, and what a model might write instead."""

from __future__ import annotations

import random

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer, get_codec

WIDTH, HEIGHT = 640, 480
REFERENCES, GROUP, COMPLETIONS = 84, 12, 1000
LABELS = "person dog cat horse car cup bench chair bottle road tree-merged wall-other-merged sky-other-merged".split()
PREDICATES = (
    "on in over beside holding riding wearing looking-at walking-on standing-on attached-to in-front-of".split()
)


def draw_graph(rng: random.Random, objects: int, relations: int) -> SceneGraph:
    """A random graph; its relations are distinct and join different objects."""
    drawn = []
    for _ in range(objects):
        x, y = rng.randrange(WIDTH - 40), rng.randrange(HEIGHT - 40)
        box = (x, y, min(WIDTH, x + rng.randrange(20, 300)), min(HEIGHT, y + rng.randrange(20, 250)))
        drawn.append(Object(rng.choice(LABELS), box))
    edges: dict[tuple, None] = {}
    while len(edges) < relations:
        subject, target = rng.sample(range(objects), 2)
        edges[subject, rng.choice(PREDICATES), target] = None
    return SceneGraph(drawn, [Relation(*edge) for edge in edges], WIDTH, HEIGHT)


def disturb(rng: random.Random, graph: SceneGraph) -> SceneGraph:
    """What a model might write: boxes off by some pixels, some labels and predicates wrong, another order."""

    def moved(low: float, high: float, size: int) -> tuple[int, int]:
        low, high = (min(max(int(v) + rng.randrange(-12, 13), 0), size) for v in (low, high))
        return (low, high) if low < high else (max(0, high - 5), max(0, high - 5) + 5)

    objects = []
    for o in graph.objects:
        x1, x2 = moved(o.box[0], o.box[2], WIDTH)
        y1, y2 = moved(o.box[1], o.box[3], HEIGHT)
        objects.append(Object(o.label if rng.random() < 0.85 else rng.choice(LABELS), (x1, y1, x2, y2)))
    order = list(range(len(objects)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    edges = {
        (place[r.subject], r.predicate if rng.random() < 0.8 else rng.choice(PREDICATES), place[r.object]): None
        for r in graph.relations
    }
    return SceneGraph([objects[i] for i in order], [Relation(*edge) for edge in edges], WIDTH, HEIGHT)


def workload(codec: str, objects: int, relations: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Completions and their solutions; the same for the same arguments."""
    rng = random.Random(seed)
    encode = get_codec(codec).encode
    completions, solutions = [], []
    for _ in range(REFERENCES):
        graph = draw_graph(rng, objects, relations)
        solution = encode(graph)
        for _ in range(GROUP):
            text = answer.wrap(encode(disturb(rng, graph)))
            completions.append(text if rng.random() < 0.94 else text[: rng.randrange(len(text))])
            solutions.append(solution)
    return completions[:COMPLETIONS], solutions[:COMPLETIONS]
