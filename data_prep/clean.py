"""From annotation as it is to a graph that can be learnt, with a count of everything that was taken away."""

from __future__ import annotations

from functools import lru_cache

from sgrl.graph import Relation, SceneGraph
from sgrl.vocabulary import Vocabulary

COUNTS = (
    "unknown_objects",
    "unknown_predicates",
    "out_of_image_boxes",
    "degenerate_boxes",
    "duplicate_objects",
    "orphaned_relations",
    "self_relations",
    "duplicate_relations",
)
"""What `clean` counts; out_of_image_boxes are clipped and stay, everything else is removed."""


def clean(graph: SceneGraph, vocabulary: Vocabulary) -> tuple[SceneGraph, dict[str, int]]:
    """Remove labels outside the vocabulary, then repair as `SceneGraph.cleaned` does. Counts have the keys COUNTS.

    Relations of an object that is removed are counted as orphaned.
    """
    known, predicates = _labels(vocabulary.objects), _labels(vocabulary.predicates)
    counts = dict.fromkeys(COUNTS, 0)
    if not known.issuperset([o.label for o in graph.objects]) or not predicates.issuperset(
        [r.predicate for r in graph.relations]
    ):
        graph = _without_unknown(graph, known, predicates, counts)
    graph, repaired = graph.cleaned()
    repaired["orphaned_relations"] += counts["orphaned_relations"]
    counts.update(repaired)
    return graph, counts


@lru_cache(maxsize=8)
def _labels(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


def _without_unknown(
    graph: SceneGraph, known: frozenset[str], predicates: frozenset[str], counts: dict[str, int]
) -> SceneGraph:
    keep = [i for i, o in enumerate(graph.objects) if o.label in known]
    counts["unknown_objects"] = len(graph.objects) - len(keep)
    position = {old: new for new, old in enumerate(keep)}
    relations = []
    for r in graph.relations:
        if r.predicate not in predicates:
            counts["unknown_predicates"] += 1
        elif r.subject not in position or r.object not in position:
            counts["orphaned_relations"] += 1
        else:
            relations.append(Relation(position[r.subject], r.predicate, position[r.object], r.group, r.span, r.score))
    return SceneGraph(tuple(graph.objects[i] for i in keep), tuple(relations), graph.width, graph.height)
