"""Scored graphs and a vocabulary: its columns, and whether labels are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sgrl.errors import suggest
from sgrl.scores.graph import SEPARATOR, ScoredGraph, ScoreError
from sgrl.terminal import printable
from sgrl.vocabulary import Vocabulary


def by_group(vocabulary: Vocabulary, scores: Mapping[str, Sequence]) -> np.ndarray:
    """predicate_scores (R, P) of the scores of each group, (R, predicates of the group) in the group's order.

    Raises:
        ScoreError: a group is missing, unknown, or has another number of columns or pairs.
    """
    groups = vocabulary.groups or {}
    for name in (*scores, *groups):
        if name not in groups or name not in scores:
            raise ScoreError(f"predicate scores of {', '.join(scores)}; {vocabulary.name!r} has {', '.join(groups)}")
    tables = {name: np.asarray(scores[name]) for name in groups}
    pairs = {len(table) for table in tables.values()}
    found = {name: table.shape for name, table in tables.items()}
    if len(pairs) > 1 or any(len(shape) != 2 or shape[1] != len(groups[name]) for name, shape in found.items()):
        wanted = {name: ("R", len(labels)) for name, labels in groups.items()}
        raise ScoreError(f"predicate scores of shapes {found}; expected {wanted}")
    column = {label: (name, i) for name, labels in groups.items() for i, label in enumerate(labels)}
    columns = [tables[name][:, i] for name, i in (column[label] for label in vocabulary.predicates)]
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0))


class VocabularyCheck:
    """Whether scored graphs are of a vocabulary: `VocabularyCheck(vocabulary)(graph)` raises ScoreError if not.

    Columns must match its length; labels must be its own, in the official spelling or that of texts, predicates with
    their group or without, unless the graph is a written one.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        spellings = {
            kind: {form for label in labels for form in (label, vocabulary.to_text(label))}
            for kind, labels in (("objects", vocabulary.objects), ("predicates", vocabulary.predicates))
        }
        for group, labels in (vocabulary.groups or {}).items():
            forms = [form for label in labels for form in (label, vocabulary.to_text(label))]
            spellings["predicates"] |= {f"{group}{SEPARATOR}{form}" for form in forms}
        self._known = spellings

    def __call__(self, graph: ScoredGraph) -> None:
        vocabulary = self.vocabulary
        for name, values, count in (
            ("label_scores", graph.label_scores, len(vocabulary.objects)),
            ("predicate_scores", graph.predicate_scores, len(vocabulary.predicates)),
        ):
            if values is not None and len(values) and values.shape[1] != count:
                graph.fail(name, f"{values.shape[1]} columns", f"{count}, one for each of {vocabulary.name!r}")
        if graph.written:
            return
        for name, labels, kind in (
            ("labels", graph.labels, "objects"),
            ("predicates", graph.predicates, "predicates"),
        ):
            for i, label in enumerate(labels or ()):
                if label not in self._known[kind]:
                    hint = suggest(label[:80].rpartition(SEPARATOR)[2], getattr(vocabulary, kind))
                    graph.fail(name, f"{printable(label, 80)!r} at {i}", f"one of {vocabulary.name!r}{hint}")
