"""From logits to what is said of a frame: scored pairs, a ranking of triplets, a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgrl.errors import UsageError, suggest
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.models.detection.boxes import to_corners
from sgrl.models.detection.suppression import kept, overlaps
from sgrl.models.vost.answers import PERSON
from sgrl.vocabulary import Vocabulary

CONSTRAINTS = ("with", "no")
ENTER = 500
"""How many triplets enter suppression."""

SAME = 0.5
"""Overlap of two boxes of one class that a written graph takes for one object."""


class Detections(NamedTuple):
    """What the model says of one frame; the fields that ranking metrics take, in their order.

    labels: of 2N objects: N persons, then N objects. boxes: (2N, 4) corners in pixels. scores: (2N,), persons 1.
    pairs: (N, 2), person i and object i. predicate_scores: (N, R), in the vocabulary's order.
    """

    labels: list[str]
    boxes: np.ndarray
    scores: np.ndarray
    pairs: np.ndarray
    predicate_scores: np.ndarray


@torch.no_grad()
def detections(
    outputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]], vocabulary: Vocabulary
) -> list[Detections]:
    """What outputs say, frame by frame.

    Args:
        outputs: logits and boxes (B, N, .), as `VostForSceneGraphs` gives them. With `labels` (B, N) the classes were
            given, and score 1; with `mask` (B, N) bool only some queries are there; with `person_logits` (B, N, 2)
            only those count that begin with the box which is a person most surely.
        sizes: (width, height) of each frame in pixels.
        vocabulary: with the three groups, in the order of the logits.
    """
    groups = vocabulary.groups or {}
    names = [label for group in ("attention", "spatial", "contacting") for label in groups[group]]
    columns = [names.index(label) for label in vocabulary.predicates]
    attention = outputs["attention_logits"][..., :-1].softmax(-1)
    others = [outputs[f"{group}_logits"].sigmoid() for group in ("spatial", "contacting")]
    predicates = torch.cat([attention, *others], dim=-1)[..., columns]
    if "labels" in outputs:
        labels = outputs["labels"]
        scores = torch.ones_like(predicates[..., 0])
    else:
        scores, labels = outputs["object_logits"].softmax(-1)[..., :-1].max(-1)
    boxes = torch.stack([to_corners(outputs[f"{name}_boxes"]) for name in ("subject", "object")], dim=1)
    boxes, scores, predicates = (value.double().cpu().numpy() for value in (boxes, scores, predicates))
    labels, mask = labels.cpu().tolist(), outputs.get("mask")
    persons = outputs["person_logits"].softmax(-1)[..., 0].cpu().numpy() if "person_logits" in outputs else None
    found = []
    for i, (width, height) in enumerate(sizes):
        here = np.ones(len(labels[i]), bool) if mask is None else mask[i].cpu().numpy()
        if persons is not None:
            here = here & _of_person(boxes[i, 0], persons[i], here)
        count = int(here.sum())
        found.append(
            Detections(
                labels=[PERSON] * count + [vocabulary.objects[labels[i][n]] for n in np.flatnonzero(here)],
                boxes=boxes[i][:, here].reshape(-1, 4) * np.array([width, height, width, height], np.float64),
                scores=np.concatenate([np.ones(count), scores[i][here]]),
                pairs=np.arange(2 * count).reshape(2, count).T.copy(),
                predicate_scores=predicates[i][here],
            )
        )
    return found


def _of_person(boxes: np.ndarray, persons: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Which pairs begin with the person: of the subjects' boxes (N, 4) the one with the highest mean probability."""
    if not here.any():
        return here
    subjects, of = np.unique(boxes[here], axis=0, return_inverse=True)
    of = of.ravel()
    means = np.bincount(of, persons[here]) / np.bincount(of)
    return (boxes == subjects[means.argmax()]).all(axis=1)


def ranked_triplets(
    found: Detections,
    vocabulary: Vocabulary,
    constraint: str,
    top: int,
    overlap: float | None = None,
    pixel: float = 0.0,
) -> list[tuple[int, int, float]]:
    """The best triplets as (pair, predicate, score), best first; equal scores by pair, then predicate.

    Args:
        found: of one frame.
        constraint: "with": the best predicate of each group and pair. "no": all of them.
        top: how many at most.
        overlap: with a number, a triplet goes if a better one stays that has the same classes and predicate, and the
            IoU of the subjects times that of the objects is greater. OED: 0.9.
        pixel: added to the sides of boxes for that; OED's figures come from 1 and boxes in the unit square.

    Raises:
        SgrlError: another constraint.
    """
    if constraint not in CONSTRAINTS:
        raise UsageError(f"unknown constraint {constraint!r}{suggest(constraint, CONSTRAINTS)}")
    pairs, predicates, scores = _candidates(found, vocabulary, constraint)
    order = np.argsort(-scores, kind="stable")
    if overlap is None:
        order = order[:top]
    else:
        order = order[: max(ENTER, top)]
        both = overlaps(found.boxes, pixel)
        subjects, objects = found.pairs[:, 0], found.pairs[:, 1]
        near = both[np.ix_(subjects, subjects)] * both[np.ix_(objects, objects)] > overlap
        classes = [(found.labels[s], found.labels[o]) for s, o in found.pairs]
        stay = kept(((p, (*classes[p], r)) for p, r in zip(pairs[order], predicates[order], strict=True)), near)
        order = order[stay][:top]
    columns = (column[order].tolist() for column in (pairs, predicates, scores))
    return list(zip(*columns, strict=True))


def _candidates(found: Detections, vocabulary: Vocabulary, constraint: str):
    """Pairs, predicates and scores of the triplets that may be ranked, by pair, then predicate."""
    table = np.asarray(found.predicate_scores, np.float64).reshape(len(found.pairs), len(vocabulary.predicates))
    scores = np.asarray(found.scores, np.float64)
    pairs = np.asarray(found.pairs).reshape(-1, 2)
    table = table * (scores[pairs[:, 0]] * scores[pairs[:, 1]])[:, None]
    chosen = np.ones_like(table, bool)
    if constraint == "with":
        chosen[:] = False
        index = {label: i for i, label in enumerate(vocabulary.predicates)}
        for labels in (vocabulary.groups or {}).values():
            columns = np.array(sorted(index[label] for label in labels))
            if len(columns):
                chosen[np.arange(len(table)), columns[found.predicate_scores[:, columns].argmax(1)]] = True
    rows, columns = np.nonzero(chosen)
    return rows, columns, table[rows, columns]


def written_graph(
    found: Detections,
    vocabulary: Vocabulary,
    width: int,
    height: int,
    min_score: float = 0.3,
    max_pairs: int = 30,
) -> SceneGraph:
    """One graph with scores: one person, objects that are told apart, and the relations that are likely enough.

    The person has the box of the best pair. A pair joins a better one of its class if their objects' boxes overlap by
    more than `SAME`. Of a group of alternatives ("attention") the best label alone is written.

    Args:
        width, height: of the frame in pixels. min_score: of a relation. max_pairs: the best of them.
    """
    group_of = {label: name for name, labels in (vocabulary.groups or {}).items() for label in labels}
    ranked = ranked_triplets(found, vocabulary, "no", found.predicate_scores.size)
    places: dict[int, int] = {}  # pair -> object of the graph
    objects: list[Object] = []
    relations: dict[tuple[int, str], Relation] = {}
    attends: set[int] = set()
    near = overlaps(found.boxes) > SAME
    for pair, column, score in ranked:
        if score < min_score:
            break
        subject, target = (int(end) for end in found.pairs[pair])
        if pair not in places:
            label = found.labels[target]
            same = (p for p in places if found.labels[found.pairs[p, 1]] == label and near[found.pairs[p, 1], target])
            joined = next(same, None)
            if joined is not None:
                places[pair] = places[joined]
            elif len(objects) > max_pairs:
                continue
            else:
                if not objects:
                    objects.append(_object(found, subject))
                places[pair] = len(objects)
                objects.append(_object(found, target))
        predicate, place = vocabulary.predicates[column], places[pair]
        group = group_of.get(predicate)
        if (place, predicate) in relations or (group == "attention" and place in attends):
            continue
        attends |= {place} if group == "attention" else set()
        relations[place, predicate] = Relation(0, predicate, place, group, score=score)
    return SceneGraph(tuple(objects), tuple(relations.values()), width, height)


def _object(found: Detections, place: int) -> Object:
    return Object(found.labels[place], tuple(found.boxes[place].tolist()), float(found.scores[place]))
