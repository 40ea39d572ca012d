"""What the model takes: targets of a frame, and its priors; arrays for a frame, tensors for a batch."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sgrl.boxes import iou
from sgrl.models.vost.answers import PERSON
from sgrl.models.vost.geometry import pair_geometry
from sgrl.models.vost.priors import PriorPair
from sgrl.models.vost.queries import predicate_text
from sgrl.text.parsed import GROUPS, ParsedGraph
from sgrl.vocabulary import Vocabulary

SAME = 0.5
"""The least IoU with which what a language model said counts for a box that was given."""


class Labels:
    """Positions of a vocabulary's labels, in any spelling, and the columns of each group as the logits have them."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.objects = {label: i for i, label in enumerate(vocabulary.objects)}
        self.predicates = {label: i for i, label in enumerate(vocabulary.predicates)}
        groups = vocabulary.groups or {}
        self.groups = {name: list(groups[name]) for name in GROUPS}
        self.columns = [[self.predicates[label] for label in labels] for labels in self.groups.values()]
        self.places = {label: (name, i) for name, labels in self.groups.items() for i, label in enumerate(labels)}

    def official(self, label: str) -> str:
        found = self.vocabulary.from_text(label)
        return label if found is None else found


def target_of(graph: ParsedGraph, size: tuple[int, int], labels: Labels) -> dict[str, np.ndarray]:
    """The pairs of a frame's reference: each person and what it is related to, in the order of the objects.

    Args:
        graph: as a codec with groups reads it. size: width and height of its coordinates.

    Returns: labels (G,), subject_boxes, object_boxes (G, 4) as centres in 0..1, attention, spatial, contacting (G, .);
    and boxes (K, 4) of all objects, ends (G, 2), which of them a pair joins. What the vocabulary does not have is left
    out.
    """
    names = [labels.official(label) for label in graph.labels]
    boxes = centres(np.asarray(graph.boxes, np.float32).reshape(-1, 4) / np.array([*size, *size], np.float32))
    held: dict[tuple[int, int], set[tuple[str, int]]] = {}
    for subject, predicate, target in graph.relations:
        place = labels.places.get(labels.official(predicate.rpartition("__")[2]))
        if place and subject != target and names[subject] == PERSON and names[target] in labels.objects:
            held.setdefault((subject, target), set()).add(place)
    pairs = sorted(held)
    tables = {name: np.zeros((len(pairs), len(columns)), np.float32) for name, columns in labels.groups.items()}
    for row, pair in enumerate(pairs):
        for name, column in held[pair]:
            tables[name][row, column] = 1
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    classes = np.array([labels.objects[names[target]] for _, target in pairs], np.int64)
    both = {"subject_boxes": boxes[ends[:, 0]], "object_boxes": boxes[ends[:, 1]]}
    return {"labels": classes, **both, **tables, "boxes": boxes, "ends": ends}


def centres(boxes: np.ndarray) -> np.ndarray:
    """Corners (..., 4), clipped to 0..1, as cx, cy, width, height."""
    boxes = np.clip(np.nan_to_num(boxes), 0, 1)
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def corners(boxes: np.ndarray) -> np.ndarray:
    """The other way round."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def flipped(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Target or priors of the mirrored image: all that is called boxes."""
    found = dict(given)
    for name, value in given.items():
        if name.endswith("boxes"):
            found[name] = value.copy()
            found[name][..., 0] = 1 - value[..., 0]
    return found


@dataclass(frozen=True)
class Disturbance:
    """What is done to priors in training, against what a language model remembers of it: rates in [0, 1].

    dropout: of whole pairs. noise: of labels, which become others of their kind.
    """

    dropout: float = 0.0
    noise: float = 0.0

    def __call__(
        self, pairs: Sequence[tuple[int, PriorPair]], labels: Labels, rng: random.Random
    ) -> list[tuple[int, PriorPair]]:
        """The pairs that stay, with their positions."""
        kept = []
        for place, pair in pairs:
            if self.dropout and rng.random() < self.dropout:
                continue
            if self.noise:
                label = rng.choice(labels.vocabulary.objects) if rng.random() < self.noise else pair.label
                predicates = tuple(self._other(predicate, labels, rng) for predicate in pair.predicates)
                pair = replace(pair, label=label, predicates=predicates, scores=None)
            kept.append((place, pair))
        return kept

    def _other(self, predicate: str, labels: Labels, rng: random.Random) -> str:
        if rng.random() >= self.noise or predicate not in labels.places:
            return predicate
        return rng.choice(labels.groups[labels.places[predicate][0]])


@dataclass(frozen=True)
class Texts:
    """Vectors of all labels.

    Args:
        labels: of the vocabulary. objects (C, L), predicates (R, L): float32.
    """

    labels: Labels
    objects: Tensor
    predicates: Tensor

    @classmethod
    def of(cls, labels: Labels, size: int, objects: np.ndarray | None, predicates: np.ndarray | None) -> Texts:
        """Zeros of `size` numbers where there are none."""
        counts = len(labels.objects), len(labels.predicates)
        tables = zip(counts, (objects, predicates), strict=True)
        found = (torch.zeros(n, size) if table is None else torch.as_tensor(table).float() for n, table in tables)
        return cls(labels, *found)


def said(pairs: Sequence[tuple[int, PriorPair]], features: np.ndarray | None, labels: Labels, visual_size: int | None):
    """What a language model said of a frame, as arrays.

    Args:
        pairs: with their positions among the features (pairs, 3, V), which may be missing or not fit.

    Returns: told (P,); rows (P, 2), classes of subject and object, -1 unknown; present (P, R); boxes (P, 2, 4) as
    centres; visual (P, 3, V), if there is a size.
    """
    count = len(pairs)
    found = {
        "told": np.ones(count, bool),
        "rows": np.full((count, 2), -1, np.int64),
        "present": np.zeros((count, len(labels.predicates)), bool),
        "boxes": np.zeros((count, 2, 4), np.float32),
    }
    if visual_size is not None:
        found["visual"] = np.zeros((count, 3, visual_size), np.float32)
    for row, (place, pair) in enumerate(pairs):
        found["rows"][row] = [labels.objects.get(label, -1) for label in (pair.subject, pair.label)]
        found["boxes"][row] = pair.subject_box, pair.box
        for label in pair.predicates:
            if label in labels.predicates:
                found["present"][row, labels.predicates[label]] = True
        if visual_size is not None and features is not None and place < len(features):
            if features.shape[1:] == (3, visual_size):
                found["visual"][row] = np.nan_to_num(features[place])
    found["boxes"] = centres(found["boxes"])
    return found


def given(
    classes: np.ndarray | None, boxes: np.ndarray, told: Mapping[str, np.ndarray], labels: Labels
) -> dict[str, np.ndarray]:
    """What was said of pairs that are given: of each what is told of boxes like these, and of this class.

    Args:
        classes: (G,) of the objects, None if they are not given. boxes: (G, 2, 4) centres. told: see `said`.
    """
    chosen = _chosen(classes, boxes, told)
    known = chosen >= 0
    found = {}
    for name, value in told.items():
        found[name] = np.zeros((len(boxes), *value.shape[1:]), value.dtype)
        found[name][known] = value[chosen[known]]
    found |= {"boxes": boxes, "told": known}
    if classes is None:
        found["rows"][~known] = -1
    else:
        found["rows"] = np.stack([np.full_like(classes, labels.objects[PERSON]), classes], axis=1)
    return found


def _chosen(classes: np.ndarray | None, boxes: np.ndarray, told: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each given pair which of those that are told is meant, each at most once; -1 for none."""
    chosen = np.full(len(boxes), -1)
    if not len(boxes) or not len(told["boxes"]):
        return chosen
    near = iou(corners(boxes[:, 1]), corners(told["boxes"][:, 1]))
    if classes is not None:
        near *= classes[:, None] == told["rows"][None, :, 1]
    else:
        near *= iou(corners(boxes[:, 0]), corners(told["boxes"][:, 0])) >= SAME
    taken = set()
    for flat in np.argsort(-near, axis=None, kind="stable").tolist():
        row, at = divmod(flat, near.shape[1])
        if near[row, at] < SAME:
            break
        if chosen[row] < 0 and at not in taken:
            chosen[row] = at
            taken.add(at)
    return chosen


def as_task(
    task: str, told: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray], labels: Labels
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Priors and target of a frame as a task wants them. told: see `said`; target: see `target_of`."""
    boxes, ends = target["boxes"], target["ends"]
    target = {name: value for name, value in target.items() if name not in ("boxes", "ends")}
    if task == "sgdet":
        return dict(told), target
    if task == "predcls":
        both = np.stack([target["subject_boxes"], target["object_boxes"]], axis=1)
        return given(target["labels"], both, told, labels), target
    order = [(s, o) for s in range(len(boxes)) for o in range(len(boxes)) if s != o]
    place = {pair: i for i, pair in enumerate(order)}
    rows = np.array(order, np.int64).reshape(-1, 2)
    target["pairs"] = np.array([place[tuple(pair)] for pair in ends.tolist()], np.int64)
    return given(None, boxes[rows], told, labels), target


def batch_of(frames: Sequence[Mapping[str, np.ndarray]], texts: Texts) -> dict[str, Tensor]:
    """Priors of frames with different numbers of pairs as the model takes them, padded to the most (at least one)."""
    count, most = len(frames), max(1, *(len(frame["told"]) for frame in frames))
    arrays = {"mask": np.zeros((count, most), bool)}
    for name, first in frames[0].items():
        arrays[name] = np.full((count, most, *first.shape[1:]), -1 if name == "rows" else 0, first.dtype)
    for row, frame in enumerate(frames):
        arrays["mask"][row, : len(frame["told"])] = True
        for name, value in frame.items():
            arrays[name][row, : len(value)] = value
    batch = {name: torch.from_numpy(value) for name, value in arrays.items()}
    rows, present, boxes = (batch.pop(name) for name in ("rows", "present", "boxes"))
    return batch | {
        "text": texts.objects[rows].masked_fill((rows < 0)[..., None], 0),
        "predicate": predicate_text(present, texts.predicates, texts.labels.columns),
        "geometry": pair_geometry(boxes[:, :, 0], boxes[:, :, 1]),
        "labels": rows[..., 1].clamp(min=0),
    }
