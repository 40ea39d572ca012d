"""The reward terms of R1-SGG (Chen et al., 2025), unweighted.

With N reference objects, g reference relations, s the similarity of two labels, over the pairs of the Hungarian
assignment:

    object_class        sum of s / N; extra objects cost nothing
    object_box          sum of (2 IoU + 5 exp(-L1)) / 7 / N, whatever the labels
    soft_recall         sum of s(subject) s(object) s(predicate) / g through the assignment; where several predicates
                        are predicted for one pair of objects, the last one counts
    hard_recall         reference relations that a prediction equals, with both boxes at IoU >= threshold, / g
    hard_recall_relax   the best s(subject) s(object) s(predicate) of predictions with both boxes near enough, / g

Unlike SceneGraphVLM's, these terms score a readable graph whose format is wrong. Departures from the published code:
labels are compared with `_` and `-` as blanks on both sides (published: on one), a relation that names an unknown
object counts for nothing (published: it may void the sample), boxes of NaN or infinite numbers make the text
unreadable (published: they pass every IoU test), the format reward works (published: 0 for every graph with an
object), and an answer inside <think> is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rewards.matching import Reference, Similarity, assign, geometry, in_order, label_similarity
from rewards.terms import COUNTS, Settings
from sgrl.text import answer
from sgrl.text import json as layout
from sgrl.text.codec import Codec
from sgrl.text.parsed import MAX_RECOVERED, FormatError, ParsedGraph
from sgrl.vocabulary import normalised

TERMS: dict[str, tuple[float, float]] = dict.fromkeys(
    ("format", "object_class", "object_box", "soft_recall", "hard_recall", "hard_recall_relax"), (0.0, 1.0)
)
"""Term -> its least and its greatest value."""
TASKS = ("sgg", "det", "cls")
"""Scene graphs, objects only (the recalls are 0), relations between classes (the object terms are 0)."""

_THOUGHT_THEN_ANSWER = re.compile(
    rf"(?:{'|'.join(re.escape(closing) for _, closing in answer.THOUGHTS)})\s*{answer.OPEN}"
)


class Reading(NamedTuple):
    """A prediction.

    same_id: per object the position of the last object of the same id, the one that relations mean.
    triplets: labels of all relations, also of those that name an unknown object (the task `cls` has no objects).
    """

    graph: ParsedGraph
    same_id: list[int]
    triplets: list[tuple[str, str, str]]
    format: float
    reason: str | None


def reference(graph: ParsedGraph) -> Reference:
    """A reference whose labels are normalised."""
    return Reference(_normalised(graph))


def _normalised(graph: ParsedGraph) -> ParsedGraph:
    relations = [(subject, normalised(predicate), target) for subject, predicate, target in graph.relations]
    return ParsedGraph([normalised(label) for label in graph.labels], graph.boxes, relations)


def read(text: str, codec: Codec, settings: Settings) -> Reading:
    """What a completion says.

    For JSON the reading is R1-SGG's own, which does not ask for the format; for others the strict one.

    Raises:
        FormatError: there is no readable graph.
    """
    if not codec.is_json:
        graph = _normalised(codec.parse(text, settings.width, settings.height))
        triplets = [(graph.labels[s], predicate, graph.labels[o]) for s, predicate, o in graph.relations]
        return Reading(graph, list(range(len(graph.labels))), triplets, 1.0, None)
    text = text.strip()
    tagged = text.endswith(answer.CLOSE) and answer.thought_end(text) > 0 and bool(_THOUGHT_THEN_ANSWER.search(text))
    issues: list[str] = []
    document = layout.load(layout.find_answer(text, published=True), issues)
    objects = layout.items_of(document, "objects", issues)
    if len(objects) > MAX_RECOVERED:
        issues.append(f"more than {MAX_RECOVERED} objects")
    if issues:
        raise FormatError(issues[0])
    ids, boxes = zip(*map(layout.read_object, objects), strict=True) if objects else ((), ())
    positions = {normalised(name): i for i, name in enumerate(ids)}
    relations, triplets = [], []
    for item in layout.items_of(document, "relationships", issues)[:MAX_RECOVERED]:
        try:
            subject, predicate, target = layout.read_relation(item)
        except FormatError as error:
            issues.append(error.reason)
            continue
        predicate = normalised(predicate)
        triplets.append((_category(subject), predicate, _category(target)))
        start, end = positions.get(normalised(subject)), positions.get(normalised(target))
        if start is not None and end is not None:
            relations.append((start, predicate, end))
        elif settings.task == "sgg":
            issues.append(f"relation {subject!r} {predicate!r} {target!r} names an unknown object")
    if not tagged:
        issues.append("expected <think>...</think><answer>...</answer>")
    form = float(not issues)
    if not tagged and len(issues) == 1 and not settings.strict_format:
        form = 0.5
    graph = ParsedGraph([_category(name) for name in ids], list(boxes), relations)
    same_id = [positions[normalised(name)] for name in ids]
    return Reading(graph, same_id, triplets, form, issues[0] if issues else None)


def _category(name: str) -> str:
    """The class in an object's id, normalised."""
    return normalised(layout.class_of(name))


def score(reading: Reading, truth: Reference, settings: Settings) -> tuple[dict[str, float], dict[str, int]]:
    """Terms and counts of one readable prediction."""
    (labels, boxes, relations), order = in_order(reading.graph)
    n, g, m = len(truth.labels), len(truth.relations), len(labels)
    similarity = settings.similarity or _equal
    terms = dict.fromkeys(TERMS, 0.0)
    terms["format"] = reading.format
    matched = grounded = hits = 0
    if not (n or m or settings.task == "cls"):  # nothing is missing, nothing made up
        terms["object_class"] = terms["object_box"] = 1.0
    if settings.task == "cls" and g:
        terms["soft_recall"] = _triplet_recall(reading.triplets, truth, similarity)
    if n and m:
        pairs = geometry(np.array(boxes, dtype=np.float64), truth.boxes, settings.width, settings.height)
        if settings.task != "cls":
            similar = label_similarity(labels, truth, similarity)
            label_weight, giou_weight, l1_weight = settings.matching_weights
            cost = label_weight * (1.0 - similar) + giou_weight * (1.0 - pairs.giou) + l1_weight * pairs.l1
            rows, columns = assign(cost)
            iou = pairs.iou[rows, columns]
            quality = giou_weight * iou + l1_weight * np.exp(-pairs.l1[rows, columns])
            terms["object_class"] = float(similar[rows, columns].sum()) / n
            terms["object_box"] = float(quality.sum()) / max(1e-9, giou_weight + l1_weight) / n
            equal = np.array([labels[row] == truth.labels[column] for row, column in zip(rows, columns, strict=True)])
            matched, grounded = int(equal.sum()), int((equal & (iou >= settings.iou_threshold)).sum())
        if settings.task == "sgg" and g:
            prediction = dict(zip(columns.tolist(), rows.tolist(), strict=True))
            place = {old: new for new, old in enumerate(order)}
            named = {place[i]: place[last] for i, last in enumerate(reading.same_id)}
            terms["soft_recall"] = _soft_recall(labels, relations, named, truth, prediction, similarity)
        if settings.task != "det" and relations and g:
            hits, relaxed = _hard_recalls(
                labels, relations, truth, pairs.iou >= settings.relation_iou_threshold, similarity
            )
            terms["hard_recall"], terms["hard_recall_relax"] = hits / g, relaxed / g
    counts = (m, n, matched, grounded, len(reading.triplets), g, hits)
    return terms, dict(zip(COUNTS, counts, strict=True))


def _equal(a: str, b: str) -> float:
    return 1.0 if a == b else 0.0


def _soft_recall(
    labels: list[str],
    relations: Sequence[tuple[int, str, int]],
    named: dict[int, int],
    truth: Reference,
    prediction: dict[int, int],
    similarity: Similarity,
) -> float:
    """`named`: predicted object -> the one that its id means; `prediction`: reference object -> predicted object."""
    said = {(subject, target): predicate for subject, predicate, target in relations}
    total = 0.0
    for subject, predicate, target in truth.relations:
        if subject in prediction and target in prediction:
            s, t = prediction[subject], prediction[target]
            word = said.get((named[s], named[t]))
            if word is not None:
                total += (
                    similarity(labels[s], truth.labels[subject])
                    * similarity(labels[t], truth.labels[target])
                    * similarity(word, predicate)
                )
    return total / len(truth.relations)


def _hard_recalls(
    labels: list[str],
    relations: Sequence[tuple[int, str, int]],
    truth: Reference,
    near: np.ndarray,
    similarity: Similarity,
) -> tuple[int, float]:
    """Reference relations found exactly, and the sum of the best similarities. `near` (P, N): boxes that overlap."""
    subjects, targets = [r[0] for r in relations], [r[2] for r in relations]
    true_subjects, true_targets = [r[0] for r in truth.relations], [r[2] for r in truth.relations]
    both_near = near[subjects][:, true_subjects] & near[targets][:, true_targets]
    found: list[set[tuple[str, str, str]]] = [set() for _ in truth.relations]
    for i, j in zip(*(index.tolist() for index in np.nonzero(both_near)), strict=True):
        subject, predicate, target = relations[i]
        found[j].add((labels[subject], predicate, labels[target]))
    hits, relaxed = 0, 0.0
    for triplets, (subject, predicate, target) in zip(found, truth.relations, strict=True):
        a, b = truth.labels[subject], truth.labels[target]
        hits += (a, predicate, b) in triplets
        if triplets:
            relaxed += max(similarity(s, a) * similarity(o, b) * similarity(p, predicate) for s, p, o in triplets)
    return hits, relaxed


def _triplet_recall(triplets: Sequence[tuple[str, str, str]], truth: Reference, similarity: Similarity) -> float:
    """Sum of similarities of triplets over their best one-to-one assignment, / g."""
    if not triplets:
        return 0.0
    similar = np.array(
        [
            [
                similarity(s, truth.labels[subject]) * similarity(o, truth.labels[target]) * similarity(p, predicate)
                for subject, predicate, target in truth.relations
            ]
            for s, p, o in triplets
        ]
    )
    rows, columns = assign(similar, maximize=True)
    return float(similar[rows, columns].sum()) / len(truth.relations)
