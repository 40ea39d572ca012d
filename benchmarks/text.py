"""How fast the codecs write and read, in CPU time of one core, beside the `toon-format` package and `json`.

    python benchmarks/text.py

Graphs like PSG's (9.3 objects, 5.2 relations, about 400 characters) and large ones (40 objects, 60 relations), labels
of PSG; for toon-pairs graphs like Action Genome's (3.1 objects, 2.1 pairs). Best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import time

import toon_format

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, answer, get_codec
from sgrl.text.parsed import GROUPS
from sgrl.vocabulary import Vocabulary, get_vocabulary

WIDTH, HEIGHT = 640, 480


def random_graph(rng: random.Random, vocabulary: Vocabulary, n: int, m: int) -> SceneGraph:
    """`n` objects, the first a person, and `m` relations; with groups, `m` pairs of up to four labels each."""
    objects = []
    for i in range(n):
        x1, y1 = rng.randrange(WIDTH), rng.randrange(HEIGHT)
        box = (x1, y1, rng.randint(x1 + 1, WIDTH), rng.randint(y1 + 1, HEIGHT))
        objects.append(Object(rng.choice(vocabulary.objects) if i else "person", box))
    relations: dict[tuple, Relation] = {}
    if vocabulary.groups:
        for target in range(1, min(n, m + 1)):
            for group, most in zip(GROUPS, (1, 2, 2), strict=True):
                for predicate in rng.sample(vocabulary.groups[group], rng.randint(1, most)):
                    relations[target, predicate] = Relation(0, predicate, target, group)
    while len(relations) < m and n > 1:
        subject, target = rng.sample(range(n), 2)
        predicate = rng.choice(vocabulary.predicates)
        relations[subject, predicate, target] = Relation(subject, predicate, target)
    return SceneGraph(objects, list(relations.values()), WIDTH, HEIGHT)


def around(rng: random.Random, mean: float) -> int:
    """A whole number whose mean is `mean`."""
    return int(mean) + (rng.random() < mean % 1)


def per_call(function, inputs: list, rounds: int) -> float:
    """Seconds per call, the best round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for item in inputs:
            function(item)
        best = min(best, time.process_time() - start)
    return best / len(inputs)


def report(name: str, seconds: float, yardstick: float | None = None) -> None:
    beside = f"{yardstick / seconds:7.1f} x toon-format" if yardstick else ""
    print(f"{name:34}{1e6 * seconds:9.2f} us{1 / seconds:12,.0f} /s {beside}")


def measure(name: str, graphs: list[SceneGraph], rounds: int) -> None:
    """Every way through one codec."""
    codec = get_codec(name)
    bodies = [codec.encode(graph) for graph in graphs]
    texts = [answer.wrap(body) for body in bodies]
    encode = decode = None
    if indent := codec.indent:
        data = [toon_format.loads(body, indent_size=indent) for body in bodies]
        encode = per_call(lambda d: toon_format.dumps(d, indent_size=indent), data, rounds)
        decode = per_call(lambda t: toon_format.loads(t, indent_size=indent), bodies, rounds)
    report(f"{name}: encode", per_call(codec.encode, graphs, rounds), encode)
    report(f"{name}: parse (strict)", per_call(lambda t: codec.parse(t, WIDTH, HEIGHT), texts, rounds), decode)
    report(f"{name}: decode to SceneGraph", per_call(lambda t: codec.decode(t, WIDTH, HEIGHT), texts, rounds), decode)
    report(
        f"{name}: recover_parsed", per_call(lambda t: codec.recover_parsed(t, WIDTH, HEIGHT), texts, rounds), decode
    )
    report(f"{name}: diagnose", per_call(codec.diagnose, texts, rounds), decode)
    if codec.is_json:
        report("json.loads alone", per_call(json.loads, bodies, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--graphs", type=int, default=1000, help="graphs of each kind")
    parser.add_argument("--rounds", type=int, default=7, help="the best round counts")
    args = parser.parse_args()
    psg, genome = get_vocabulary("psg"), get_vocabulary("action_genome")
    for title, n, m in (("PSG-like", 9.3, 5.2), ("large", 40, 60)):
        rng = random.Random(0)
        graphs = [random_graph(rng, psg, around(rng, n), around(rng, m)) for _ in range(args.graphs)]
        length = sum(len(get_codec("toon").encode(graph)) for graph in graphs) / len(graphs)
        print(f"\n{title}: {n} objects, {m} relations, {length:.0f} characters of toon")
        for name, codec in CODECS.items():
            if not codec.grouped:
                measure(name, graphs, args.rounds)
    rng = random.Random(0)
    print("\nAction Genome-like: 3.1 objects, 2.1 pairs")
    measure("toon-pairs", [random_graph(rng, genome, around(rng, 3.1), 3) for _ in range(args.graphs)], args.rounds)


if __name__ == "__main__":
    main()
