"""What of a predicted graph is right, nearly right or made up: the colours of the pictures.

Right is what the metrics counted (`matched` in predictions.jsonl). The rest is told apart for the eye: "near" has
something of its kind in the reference, "bad" has nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sgrl import boxes
from sgrl.text import ParsedGraph

RIGHT, NEAR, WRONG = "ok", "near", "bad"
NEAR_ENOUGH = 0.5
"""The IoU of a right box."""

SIGNS = {RIGHT: "✓", NEAR: "≈", WRONG: "✗", "": ""}


class Verdict(NamedTuple):
    """state: one of RIGHT, NEAR, WRONG, or "" without a reference. reason: a few words, may hold model text.

    match: position in the reference of what it matched, or None.
    """

    state: str
    reason: str = ""
    match: int | None = None


def object_verdicts(graph: ParsedGraph, truth: ParsedGraph, matched: Sequence[Sequence[int]]) -> list[Verdict]:
    """One verdict per object of `graph`; `matched` holds (position in graph, position in truth)."""
    pairs = {int(pair[0]): int(pair[1]) for pair in matched}
    places: dict[str, list[int]] = {}
    for index, label in enumerate(truth.labels):
        places.setdefault(label, []).append(index)
    verdicts = []
    for index, label in enumerate(graph.labels):
        if index in pairs:
            verdicts.append(Verdict(RIGHT, "found in the reference", pairs[index]))
        elif label in places:
            with np.errstate(all="ignore"):  # a model's boxes may be of any size
                overlap = boxes.iou([graph.boxes[index]], [truth.boxes[i] for i in places[label]])
            best = float(np.nan_to_num(overlap).max()) + 0.0  # no -0.0
            reason = f"the reference has one elsewhere (IoU {best:.2f})" if best < 0.5 else "named twice"
            verdicts.append(Verdict(NEAR, reason))
        else:
            verdicts.append(Verdict(WRONG, "the reference has none"))
    return verdicts


def relation_verdicts(
    graph: ParsedGraph, truth: ParsedGraph, matched: Sequence[Sequence[int]], objects: Sequence[Verdict]
) -> list[Verdict]:
    """One verdict per relation of `graph`, given those of its objects."""
    pairs = {int(pair[0]): int(pair[1]) for pair in matched}
    kinds = {_names(truth, relation) for relation in truth.relations}
    written: dict[tuple[int, int], list[str]] = {}
    for subject, predicate, target in truth.relations:
        written.setdefault((subject, target), []).append(predicate)
    verdicts = []
    for index, relation in enumerate(graph.relations):
        subject, _, target = relation
        ends = tuple(objects[end].match if 0 <= end < len(objects) else None for end in (subject, target))
        if index in pairs:
            verdicts.append(Verdict(RIGHT, "found in the reference", pairs[index]))
        elif ends in written:
            verdicts.append(Verdict(NEAR, f"the reference says: {', '.join(written[ends])}"))
        elif _names(graph, relation) in kinds:
            verdicts.append(Verdict(NEAR, "the reference has it between other boxes"))
        else:
            verdicts.append(Verdict(WRONG, "nothing like it in the reference"))
    return verdicts


def hits(graph: ParsedGraph, truth: ParsedGraph) -> dict[str, list[tuple[int, int]]]:
    """What of a graph is right, as `matched` has it, where no metric has said so: each object takes the free reference
    object of its label that it overlaps with most, from an IoU of 0.5; relations follow their objects."""
    overlap = boxes.iou(graph.boxes, truth.boxes)
    same = np.array([[label == other for other in truth.labels] for label in graph.labels], dtype=bool)
    overlap = np.where(same.reshape(overlap.shape), overlap, 0.0)
    partner: dict[int, int] = {}
    for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
        mine, theirs = divmod(place, overlap.shape[1])
        if overlap[mine, theirs] < NEAR_ENOUGH:
            break
        if mine not in partner and theirs not in partner.values():
            partner[mine] = theirs
    wanted = {relation: i for i, relation in reversed(list(enumerate(truth.relations)))}
    relations: dict[int, int] = {}
    for i, (subject, predicate, target) in enumerate(graph.relations):
        found = wanted.get((partner.get(subject, -1), predicate, partner.get(target, -1)))
        if found is not None:
            relations.setdefault(found, i)
    return {"objects": list(partner.items()), "relations": [(i, j) for j, i in relations.items()]}


def verdicts(
    graph: ParsedGraph, truth: ParsedGraph | None, matched: Mapping | None
) -> tuple[list[Verdict], list[Verdict]]:
    """Those of the objects and of the relations; all without a state where there is no reference."""
    if truth is None or matched is None:
        return [Verdict("")] * len(graph.labels), [Verdict("")] * len(graph.relations)
    objects = object_verdicts(graph, truth, matched["objects"])
    return objects, relation_verdicts(graph, truth, matched["relations"], objects)


def _names(graph: ParsedGraph, relation: tuple[int, str, int]) -> tuple[str, str, str]:
    subject, predicate, target = relation
    names = [graph.labels[end] if 0 <= end < len(graph.labels) else "?" for end in (subject, target)]
    return names[0], predicate, names[1]
