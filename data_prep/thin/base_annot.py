"""BaseAnnot: keep a frame when its annotation has changed, and only labels that every split has.

First, in every video, the first frame and each one whose annotation differs from that of the last frame kept. Then
frames with a label that does not occur in all splits go; that may take the last frame with some other label, so it is
repeated until nothing changes. Images are not opened. Definition: SceneGraphVLM's utils/BaseAnnot.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_prep.readers.record import Record
from data_prep.thin.thinning import Method, Unreadable, check_protocol, union
from sgrl.graph import SceneGraph
from sgrl.vocabulary import Vocabulary

_ROUNDS = 100  # at most; the published code's limit


class BaseAnnot(Method):
    """Thinning by annotation; see `data_prep.thin.thin`."""

    needs_all_splits = True

    @dataclass(frozen=True)
    class Options:
        """What counts as a change.

        Attributes:
            protocol: "published": the set of object labels, or the number of relations (of pairs with relations, where
                relations are in groups). A relation that gives way to another goes unnoticed, and a label outside the
                vocabulary, which no converted row shows, can cost frames. "default": the set of object labels, the
                number of relations or which labels they join, all within the vocabulary.
        """

        protocol: str = "default"

        def __post_init__(self):
            check_protocol(self.protocol)

    def __init__(self, vocabulary: Vocabulary, options: Options):
        self.objects, self.predicates = frozenset(vocabulary.objects), frozenset(vocabulary.predicates)
        self.published = options.protocol == "published"
        self.grouped = vocabulary.groups is not None

    def select(self, records: Sequence[Record], unreadable: Unreadable) -> list[int]:
        """Positions of the frames of one video whose annotation has changed."""
        return changes(self.annotation(record.graph) for record in records)

    def annotation(self, graph: SceneGraph) -> Hashable:
        """What has to differ for a frame to be kept."""
        labels = [o.label for o in graph.objects]
        relations = {(r.subject, r.predicate, r.object) for r in graph.relations if r.subject != r.object}
        if self.published:
            if self.grouped:
                return frozenset(labels), len({(subject, target) for subject, _, target in relations})
            return frozenset(labels), len(relations)
        joined = [
            (labels[subject], predicate, labels[target])
            for subject, predicate, target in relations
            if predicate in self.predicates and labels[subject] in self.objects and labels[target] in self.objects
        ]
        return self.objects.intersection(labels), len(joined), frozenset(joined)

    def select_labels(self, splits: Mapping[str, Collection[int]], known: int) -> dict[str, set[int]]:
        """The label sets of each split that may stay."""
        if self.published:
            return overlap(splits)
        allowed = overlap({split: (found & known for found in labels) for split, labels in splits.items()})
        return {
            split: {found for found in labels if found & known in allowed[split]} for split, labels in splits.items()
        }


def changes(annotations: Iterable[Hashable]) -> list[int]:
    """Positions of the first annotation and of each that differs from the last one kept.

    >>> changes(["a", "a", "b", "a"])
    [0, 2, 3]
    """
    kept: list[int] = []
    last = None
    for position, annotation in enumerate(annotations):
        if not kept or annotation != last:
            kept.append(position)
            last = annotation
    return kept


def overlap(splits: Mapping[str, Iterable[int]]) -> dict[str, set[int]]:
    """Per split, the label sets that are left when frames with a label that some split lacks are removed.

    Each round removes from all splits at once and counts labels again, until one removes nothing. A label set is an
    integer with a bit per label.

    >>> overlap({"train": [0b001, 0b011, 0b110], "test": [0b001, 0b101]})
    {'train': {1}, 'test': {1}}
    """
    left = {split: set(labels) for split, labels in splits.items()}
    for _ in range(_ROUNDS):
        everywhere = functools.reduce(operator.and_, map(union, left.values()), -1)  # -1: all bits
        rest = {split: {found for found in labels if found & everywhere == found} for split, labels in left.items()}
        if rest == left:
            break
        left = rest
    return left
